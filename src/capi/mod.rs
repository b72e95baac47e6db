//! The C ABI of `include/virnetdevtap.h`.
//!
//! A function here checks its arguments, calls the library and turns the result into 0 or -1. It decides nothing. The
//! documentation of these functions and types is the header's, so it speaks to C programmers.
#![allow(unsafe_code)] // exported functions, and pointers that come from C
#![allow(non_camel_case_types, non_snake_case)] // libvirt's names
#![allow(clippy::missing_safety_doc)] // "what C promises" is in each function's text

mod args;
mod fence;
#[cfg(feature = "preload")]
mod preload;
mod process;

// in the order of the header
pub mod types;

mod libvirt;

mod bridge;
mod persist;
mod state;

mod bulk;

mod errors;

pub use bridge::*;
pub use bulk::*;
pub use errors::*;
pub use libvirt::*;
pub use persist::*;
pub use state::*;
