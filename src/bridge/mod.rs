//! Bridge ports: what a tap is plugged into.
//!
//! `port` remembers everything about a port and puts it back. Making the tap itself belongs to `tap`.

pub(crate) mod port;
