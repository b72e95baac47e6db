//! /proc: which processes hold a tap.

use super::ifname::IfName;
use super::sys::{io_errno as errno, uninterrupted};
use super::{netns, pidfd, tunprops};
use nix::errno::Errno;
use std::fs;
use std::io::{self, Read};
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

    fn is_on(&self, process: &Path, fd: &str) -> Result<bool, Errno> {
        match self {
            Self::Line(line) => {
                let mut buffer = [0; 1024]; // a tun's fdinfo has about 60 bytes; longer ones belong to other kinds of files
                let path = process.join("fdinfo").join(fd);
                let read = seen(|| fs::File::open(&path)?.read(&mut buffer))?;
                let text = read.and_then(|len| std::str::from_utf8(buffer.get(..len)?).ok());
                Ok(text.is_some_and(|text| text.lines().any(|other| other == line)))
            }
            Self::Node(node) => Ok(seen(|| fs::read_link(process.join("fd").join(fd)))?.is_some_and(|path| path == *node)),
        }
    }
}

/// None: it is gone, or may not be looked at. Anything else that fails must not be taken for "there is none".
fn seen<T>(mut look: impl FnMut() -> io::Result<T>) -> Result<Option<T>, Errno> {
    match uninterrupted(|| look().map_err(errno)) {
        Ok(seen) => Ok(Some(seen)),
        Err(Errno::ENOENT | Errno::ESRCH | Errno::EACCES | Errno::EPERM) => Ok(None),
        Err(errno) => Err(errno),
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
/// as are those that end meanwhile; any other error is returned, since who is missing in the answer would count as not there.
/// Whoever takes our file for a look at the same moment is found. Files in flight in a socket or held by the kernel (vhost,
/// io_uring) are not.
pub(crate) fn holders_by(sign: &Sign) -> Result<Vec<Holder>, Errno> {
    let here = fs::read_link("/proc/thread-self/ns/net").map_err(errno)?;
    let mut found = Vec::new();
    for entry in uninterrupted(|| fs::read_dir("/proc").map_err(errno))? {
        let entry = entry.map_err(errno)?;
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        let process = entry.path();
        // the same name may be somewhere else; who ends between two looks must not count as being here
        let elsewhere = seen(|| fs::read_link(process.join("ns/net")))?.as_ref() != Some(&here);
        let Some(fd) = files(&process, sign)?.next().transpose()? else { continue };
        if elsewhere && !device_is_here(pid, fd)? {
            continue;
        }
        let comm = fs::read_to_string(process.join("comm")).unwrap_or_default();
        found.push(Holder { pid, comm: comm.trim_end().to_owned(), fd });
    }
    Ok(found)
}

fn device_is_here(pid: i32, fd: i32) -> Result<bool, Errno> {
    let here = || {
        let file = pidfd::get_file(pid, fd)?;
        netns::same(tunprops::device_netns(file.as_fd())?.as_fd(), netns::own()?.as_fd())
    };
    match here() {
        Err(errno @ (Errno::EMFILE | Errno::ENFILE | Errno::ENOMEM)) => Err(errno),
        here => Ok(here.unwrap_or(false)), // gone, or not to be looked at
    }
}

/// The numbers of a process's files with this sign.
fn files(process: &Path, sign: &Sign) -> Result<impl Iterator<Item = Result<i32, Errno>>, Errno> {
    let entries = seen(|| fs::read_dir(process.join("fdinfo")))?.into_iter().flatten();
    Ok(entries.filter_map(move |entry| {
        let file = || {
            let file_name = match entry.map_err(errno) {
                Ok(entry) => entry.file_name(),
                Err(Errno::ENOENT | Errno::ESRCH) => return Ok(None), // it has ended
                Err(errno) => return Err(errno),
            };
            let fd = file_name.to_str().and_then(|text| Some((text, text.parse().ok()?)));
            Ok(match fd {
                Some((text, fd)) if sign.is_on(process, text)? => Some(fd),
                _ => None,
            })
        };
        file().transpose()
    }))
}

/// The files of this process that have the sign.
#[cfg(feature = "preload")]
pub(crate) fn own_files(sign: &Sign) -> Result<Vec<i32>, Errno> {
    files(Path::new("/proc/self"), sign)?.collect()
}

/// Has this file of a process still the sign?
#[cfg(feature = "preload")]
pub(crate) fn has_still(pid: i32, fd: i32, sign: &Sign) -> bool {
    // looked at once more otherwise
    sign.is_on(Path::new(&format!("/proc/{pid}")), &fd.to_string()).unwrap_or_default()
}
