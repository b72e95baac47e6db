//! /proc: which processes hold a tap.

use super::ifname::IfName;
use super::sys::{io_errno as errno, uninterrupted};
use super::{netns, pidfd, tunprops};
use nix::errno::Errno;
use std::fs;
use std::io::Read;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

/// A process that has a file open which is attached to a tap.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    pub pid: i32,
    /// The name of the program, as in /proc/PID/comm.
    pub comm: String,
    /// The number of the first such file in that process.
    pub(crate) fd: i32,
}

/// How a file of a process shows which device it belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Sign {
    /// A line of its fdinfo: `iff:<TAB>NAME`, which tun writes (`tun_chr_show_fdinfo()`).
    Line(String),
    /// The device node that it was opened by: /dev/vhost-net, or /dev/tapN, with the index of a macvtap.
    Node(PathBuf),
}

impl Sign {
    pub(crate) fn of_tap(name: &IfName) -> Self {
        Self::Line(format!("iff:\t{name}"))
    }

    #[cfg(feature = "preload")]
    pub(crate) fn of_macvtap(ifindex: i32) -> Self {
        Self::Node(format!("/dev/tap{ifindex}").into())
    }

    fn is_on(&self, process: &Path, fd: &str) -> bool {
        match self {
            Self::Line(line) => {
                let mut buffer = [0; 1024]; // a tun's fdinfo has about 60 bytes; longer ones belong to other kinds of files
                let read = fs::File::open(process.join("fdinfo").join(fd)).and_then(|mut file| file.read(&mut buffer));
                let text = read.ok().and_then(|len| std::str::from_utf8(buffer.get(..len)?).ok());
                text.is_some_and(|text| text.lines().any(|other| other == line))
            }
            Self::Node(node) => fs::read_link(process.join("fd").join(fd)).is_ok_and(|path| path == *node),
        }
    }
}

/// Finds the processes that hold a tap. See [`holders_by`].
pub(crate) fn holders(name: &IfName) -> Result<Vec<Holder>, Errno> {
    holders_by(&Sign::of_tap(name))
}

/// Finds the processes that have the kernel's network back-end open. Which taps it holds for them it does not tell.
pub(crate) fn users_of_vhost() -> Result<Vec<Holder>, Errno> {
    holders_by(&Sign::Node("/dev/vhost-net".into()))
}

/// Looks at the files of all processes whose network namespace is the caller's, and of those of others whose file is one
/// of a device here, if the caller may take that file (pidfd_getfd). Processes that may not be looked at are passed over,
/// as are those that end meanwhile. Whoever takes our file for a look at the same moment is found. Files in flight in a socket or held by the kernel (vhost, io_uring) are not found.
pub(crate) fn holders_by(sign: &Sign) -> Result<Vec<Holder>, Errno> {
    let here = fs::read_link("/proc/thread-self/ns/net").map_err(errno)?;
    let mut found = Vec::new();
    for entry in uninterrupted(|| fs::read_dir("/proc").map_err(errno))?.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        let process = entry.path();
        // the same name may be somewhere else; who ends between two looks must not count as being here
        let elsewhere = fs::read_link(process.join("ns/net")).ok().as_ref() != Some(&here);
        let Some(fd) = files(&process, sign).next() else { continue };
        if elsewhere && !device_is_here(pid, fd) {
            continue;
        }
        let comm = fs::read_to_string(process.join("comm")).unwrap_or_default();
        found.push(Holder { pid, comm: comm.trim_end().to_owned(), fd });
    }
    Ok(found)
}

fn device_is_here(pid: i32, fd: i32) -> bool {
    let here = || {
        let file = pidfd::get_file(pid, fd)?;
        netns::same(tunprops::device_netns(file.as_fd())?.as_fd(), netns::own()?.as_fd())
    };
    here().unwrap_or(false)
}

/// The numbers of a process's files with this sign.
fn files(process: &Path, sign: &Sign) -> impl Iterator<Item = i32> {
    let entries = fs::read_dir(process.join("fdinfo")).into_iter().flatten().flatten();
    entries.filter_map(move |entry| {
        let file_name = entry.file_name();
        let fd = file_name.to_str()?;
        if sign.is_on(process, fd) { fd.parse().ok() } else { None }
    })
}

/// The files of this process that have the sign.
#[cfg(feature = "preload")]
pub(crate) fn own_files(sign: &Sign) -> Vec<i32> {
    files(Path::new("/proc/self"), sign).collect()
}

/// Has this file of a process still the sign?
#[cfg(feature = "preload")]
pub(crate) fn has_still(pid: i32, fd: i32, sign: &Sign) -> bool {
    sign.is_on(Path::new(&format!("/proc/{pid}")), &fd.to_string())
}
