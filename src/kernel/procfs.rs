//! /proc: which processes hold a tap.

use super::ifname::IfName;
use super::sys::io_errno as errno;
use super::{netns, pidfd, tunprops};
use nix::errno::Errno;
use std::fs;
use std::io::Read;
use std::os::fd::AsFd;
use std::path::Path;

/// A process that has a file open which is attached to a tap.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    pub pid: i32,
    /// The name of the program, as in /proc/PID/comm.
    pub comm: String,
    /// The number of the first such file in that process.
    pub(crate) fd: i32,
}

/// Looks for the line `iff:<TAB>NAME` that tun writes into /proc/PID/fdinfo/FD (`tun_chr_show_fdinfo()`), in all
/// processes whose network namespace is the caller's, and in those of others whose file is one of a device here, if the
/// caller may take that file (pidfd_getfd). Processes that may not be looked at are passed over, as are those that end
/// meanwhile. Files in flight in a socket or held by the kernel (vhost, io_uring) have no such line.
pub(crate) fn holders(name: &IfName) -> Result<Vec<Holder>, Errno> {
    let wanted = format!("\niff:\t{name}\n");
    let here = fs::read_link("/proc/thread-self/ns/net").map_err(errno)?;
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").map_err(errno)?.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        let process = entry.path();
        // the same name may be somewhere else; who ends between two looks must not count as being here
        let elsewhere = fs::read_link(process.join("ns/net")).ok().as_ref() != Some(&here);
        let Some(fd) = first_fd_with(&process, &wanted) else { continue };
        if elsewhere && !device_is_here(pid, fd) {
            continue;
        }
        let comm = fs::read_to_string(process.join("comm")).unwrap_or_default();
        found.push(Holder { pid, comm: comm.trim_end().to_owned(), fd });
    }
    found.sort_by_key(|holder| holder.pid);
    Ok(found)
}

fn device_is_here(pid: i32, fd: i32) -> bool {
    let here = || {
        let file = pidfd::get_file(pid, fd)?;
        netns::same(tunprops::device_netns(file.as_fd())?.as_fd(), netns::own()?.as_fd())
    };
    here().unwrap_or(false)
}

fn first_fd_with(process: &Path, wanted: &str) -> Option<i32> {
    let entries = fs::read_dir(process.join("fdinfo")).ok()?.flatten();
    entries.into_iter().find(|entry| shows(&entry.path(), wanted))?.file_name().to_str()?.parse().ok()
}

fn shows(fdinfo: &Path, wanted: &str) -> bool {
    let mut buffer = [0; 1024]; // a tun's fdinfo has about 60 bytes; longer ones belong to other kinds of files
    let read = fs::File::open(fdinfo).and_then(|mut file| file.read(&mut buffer));
    let text = read.ok().and_then(|len| std::str::from_utf8(buffer.get(..len)?).ok());
    text.is_some_and(|text| text.contains(wanted))
}

/// The files of a process that are attached to a tap of this name.
#[cfg(feature = "preload")]
pub(crate) fn files_of(pid: u32, name: &IfName) -> Vec<i32> {
    let wanted = format!("\niff:\t{name}\n");
    let Ok(entries) = fs::read_dir(format!("/proc/{pid}/fdinfo")) else { return Vec::new() };
    let numbers = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    numbers.filter(|fd| shows(Path::new(&format!("/proc/{pid}/fdinfo/{fd}")), &wanted)).collect()
}

/// Is this file of a process still attached to the tap?
#[cfg(feature = "preload")]
pub(crate) fn is_attached(pid: i32, fd: i32, name: &IfName) -> bool {
    shows(Path::new(&format!("/proc/{pid}/fdinfo/{fd}")), &format!("\niff:\t{name}\n"))
}
