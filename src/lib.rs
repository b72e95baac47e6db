//! Tap devices as libvirt's private `virNetDevTap*` functions handle them, with the promise that a tap is afterwards
//! as it was before the hypervisor had it.
//!
//! - `tap`: create, open, delete, names, holders
//! - `bridge`: the port that a tap is plugged into
//! - `stats`: counters
//! - `error`, `host`: errors, log lines, and the process that they go to
//! - `fork`: what a forked child finds of all this
//! - `capi`: the same for C, as declared in `include/virnetdevtap.h`; it checks arguments and converts results
//! - `json`: how records are written and read
//! - `kernel`: ioctls, netlink, /proc; knows nothing of the rest
#![deny(unsafe_code, clippy::multiple_unsafe_ops_per_block)]

pub mod bridge;
pub mod capi;
pub mod error;
mod fork;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::arithmetic_side_effects)] // it tests
pub mod fuzzing;
pub mod host;
mod json;
mod kernel;
#[cfg(feature = "preload")]
mod preload;
pub mod state;
pub mod stats;
pub mod tap;

pub use error::{Code, Error, Result};
pub use kernel::{IfName, InvalidIfName};
