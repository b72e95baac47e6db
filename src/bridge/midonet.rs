//! Midonet: `mm-ctl` binds an interface to a virtual port.

use super::uuid;
use crate::error::{Error, Result};
use crate::kernel::IfName;
use crate::kernel::process;
use nix::errno::Errno;
use std::time::Duration;

/// mm-ctl talks to a cluster, and has no limit of its own.
const LIMIT: Duration = Duration::from_secs(30);

/// Binds the tap to the virtual port with this id.
pub(super) fn bind(tap: &IfName, port: &[u8; 16]) -> Result<()> {
    let port = uuid(port);
    mm_ctl(&["--bind-port".to_owned(), port.clone(), tap.to_string()])
        .map_err(|(errno, why)| Error::internal(errno, format!("Unable to bind port {tap} to the virtual port {port}: {why}")))
}

/// Takes a binding back.
pub(super) fn unbind(port: &[u8; 16]) -> Result<()> {
    let port = uuid(port);
    mm_ctl(&["--unbind-port".to_owned(), port.clone()])
        .map_err(|(errno, why)| Error::internal(errno, format!("Unable to unbind the virtual port {port}: {why}")))
}

fn mm_ctl(args: &[String]) -> std::result::Result<(), (Errno, String)> {
    super::command::run("mm-ctl", args, LIMIT).map(|process::Finished { .. }| ())
}
