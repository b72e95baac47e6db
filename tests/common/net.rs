//! Looking at the network namespace from outside the library, and changing it: `ip`, sysfs, link events, frames.

use super::link::link;
use nix::errno::Errno;
use nix::sys::socket::sockopt::RcvBufForce;
use nix::sys::socket::{AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, setsockopt, socket};
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// What `ip` does for these words; it has to succeed.
pub fn ip(words: &str) {
    try_ip(words).unwrap_or_else(|e| panic!("ip {words}: {e}"));
}

pub fn try_ip(words: &str) -> Result<(), String> {
    match super::ip::here(words) {
        Some(done) => done.map_err(|errno| errno.to_string()),
        None => run_ip(words).map(drop),
    }
}

/// What `ip` itself prints; it has to succeed.
pub fn ip_says(words: &str) -> String {
    run_ip(words).unwrap_or_else(|e| panic!("ip {words}: {e}"))
}

fn run_ip(words: &str) -> Result<String, String> {
    let mut ip = Command::new("ip");
    let output = ip.args(words.split_whitespace()).stdin(Stdio::null()).output().expect("iproute2 is installed");
    if output.status.success() {
        Ok(String::from_utf8(output.stdout).unwrap())
    } else {
        Err(String::from_utf8_lossy(&output.stderr).into_owned())
    }
}

/// [`ip`] for each of these lines.
pub fn ip_batch(lines: &str) {
    lines.lines().for_each(ip);
}

pub fn exists(name: &str) -> bool {
    Path::new("/sys/class/net").join(name).exists()
}

/// All interfaces but `lo`, sorted.
pub fn interfaces() -> Vec<String> {
    let entries = fs::read_dir("/sys/class/net").unwrap().flatten();
    let mut names: Vec<_> = entries.map(|entry| entry.file_name().into_string().unwrap()).filter(|name| name != "lo").collect();
    names.sort();
    names
}

pub fn sysfs(name: &str, file: &str) -> Option<String> {
    let path: PathBuf = ["/sys/class/net", name, file].iter().collect();
    fs::read_to_string(path).ok().map(|text| text.trim_end().to_owned())
}

/// All that can be seen of a device without attaching to it, to be compared with what is seen later. Which queues are
/// open counts as well.
pub fn look(name: &str) -> String {
    let link = link(name);
    let files = ["tun_flags", "owner", "group", "ifindex", "address", "flags", "type"].map(|file| (file, sysfs(name, file)));
    format!("{link:#}\n{files:?}")
}

/// Waits until it is so. Whoever reads /proc/PID/fdinfo, another test for one, has a file open a little longer than the
/// process that closes it, so what the last close brings about may come late.
pub fn soon(so: impl Fn() -> bool) -> bool {
    let end = Instant::now() + Duration::from_secs(10);
    loop {
        if so() {
            return true;
        }
        if Instant::now() > end {
            return false;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// There is no such interface, at last.
pub fn gone(name: &str) -> bool {
    soon(|| !exists(name))
}

/// There are these interfaces and `lo`, at last.
pub fn only(names: &[&str]) -> bool {
    soon(|| interfaces() == names)
}

/// Asserts that the device is what it was when [`look`] was called.
pub fn assert_as(before: &str, name: &str) {
    assert!(soon(|| look(name) == before), "{name} before: {before}\nafter: {}", look(name));
}

/// Asserts that the call leaves the device as it was.
pub fn unchanged<T>(name: &str, call: impl FnOnce() -> T) -> T {
    let before = look(name);
    let result = call();
    assert_as(&before, name);
    result
}

/// Asserts that the call leaves no interface that was not there, and takes none away.
pub fn no_news<T>(call: impl FnOnce() -> T) -> T {
    let before = interfaces();
    let result = call();
    assert!(soon(|| interfaces() == before), "{before:?} before, {:?} after", interfaces());
    result
}

/// One message on RTNLGRP_LINK.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    New,
    Deleted,
}

/// What the kernel tells everybody about links in this network namespace.
pub struct Events(OwnedFd);

impl Events {
    /// Listens from now on.
    pub fn listen() -> Self {
        let protocol = SockProtocol::NetlinkRoute;
        let socket = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK, protocol);
        let socket = socket.unwrap();
        bind(socket.as_raw_fd(), &NetlinkAddr::new(0, libc::RTMGRP_LINK as u32)).unwrap();
        let _ = setsockopt(&socket, RcvBufForce, &(64 << 20)); // root's, and otherwise there is less room
        Self(socket)
    }

    /// Listens when nothing more is told of what has been done before: of a carrier the kernel tells late.
    pub fn listen_at_rest() -> Self {
        let events = Self::listen();
        loop {
            std::thread::sleep(Duration::from_millis(1200));
            if events.take().is_empty() {
                return events;
            }
        }
    }

    /// What has been told since the last call. The kernel sends an event before the call that causes it returns.
    pub fn take(&self) -> Vec<Event> {
        self.of_links().0.into_iter().map(|(event, _)| event).collect()
    }

    /// The same with the index of the link, and whether the kernel had to leave some out for want of room.
    pub fn of_links(&self) -> (Vec<(Event, i32)>, bool) {
        let mut events = Vec::new();
        let mut lost = false;
        let mut buffer = [0; 32768];
        loop {
            match recv(self.0.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
                Ok(len) => assert!(len >= 32),
                Err(Errno::ENOBUFS) => {
                    lost = true;
                    continue;
                }
                Err(_) => return (events, lost),
            }
            let index = i32::from_ne_bytes(buffer[20..24].try_into().unwrap());
            match u16::from_ne_bytes([buffer[4], buffer[5]]) {
                libc::RTM_NEWLINK => events.push((Event::New, index)),
                libc::RTM_DELLINK => events.push((Event::Deleted, index)),
                _ => {}
            }
        }
    }
}

/// An ethertype for experiments (IEEE 802), so that our frames can be told from what IPv6 sends by itself.
const ETHERTYPE: [u8; 2] = [0x88, 0xb5];

/// A broadcast Ethernet frame of `len` bytes.
pub fn frame(len: usize) -> Vec<u8> {
    let mut frame = vec![0xff; 6];
    frame.extend([0x02, 0, 0, 0, 0, 1]);
    frame.extend(ETHERTYPE);
    frame.resize(len, 0x5a);
    frame
}

/// A tap that sends nothing by itself and is up.
pub fn set_up_quietly(name: &str) {
    ip(&format!("link set dev {name} addrgenmode none"));
    ip(&format!("link set dev {name} up"));
}

/// Sends a frame out of the interface as the host does: whoever holds the tap can read it.
pub fn send_from_host(name: &str, frame: &[u8]) {
    assert!(try_send_from_host(name, frame), "{}", std::io::Error::last_os_error());
}

pub fn try_send_from_host(name: &str, frame: &[u8]) -> bool {
    let flags = SockFlag::SOCK_CLOEXEC;
    let socket = socket(AddressFamily::Packet, SockType::Raw, flags, SockProtocol::EthAll).unwrap();
    // SAFETY: plain C data, for which all zero bytes are a value
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_ifindex = sysfs(name, "ifindex").unwrap().parse().unwrap();
    let size = size_of_val(&address) as libc::socklen_t;
    // SAFETY: the frame and the address live until the call is over, and the sizes are theirs
    let sent =
        unsafe { libc::sendto(socket.as_raw_fd(), frame.as_ptr().cast(), frame.len(), 0, (&raw const address).cast(), size) };
    sent == frame.len() as isize
}

/// Sends a frame as a guest does.
pub fn send_from_guest(queue: &OwnedFd, frame: &[u8]) {
    let mut file = File::from(queue.try_clone().unwrap());
    assert_eq!(file.write(frame).unwrap(), frame.len());
}

/// Reads frames as a guest does until one of ours comes.
pub fn read_as_guest(queue: &OwnedFd, header: usize) -> Vec<u8> {
    let mut file = File::from(queue.try_clone().unwrap());
    loop {
        let mut buffer = vec![0; 65536];
        let len = file.read(&mut buffer).unwrap();
        buffer.truncate(len);
        if buffer.get(header + 12..header + 14) == Some(&ETHERTYPE) {
            return buffer;
        }
    }
}

/// The next of our frames, if there is one already.
pub fn try_read_as_guest(queue: &OwnedFd, header: usize) -> Option<Vec<u8>> {
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    use std::os::fd::AsFd;
    loop {
        let mut fds = [PollFd::new(queue.as_fd(), PollFlags::POLLIN)];
        if poll(&mut fds, PollTimeout::ZERO).unwrap() == 0 {
            return None;
        }
        let mut buffer = vec![0; 65536];
        let len = File::from(queue.try_clone().unwrap()).read(&mut buffer).unwrap();
        buffer.truncate(len);
        if buffer.get(header + 12..header + 14) == Some(&ETHERTYPE) {
            return Some(buffer);
        }
    }
}
