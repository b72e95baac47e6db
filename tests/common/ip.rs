//! What tests ask of `ip` most often, done here: by the same requests, without starting a program each time, which takes most
//! of the time of a short test, and all of it where the processor is emulated. The rest is left to `ip` itself.

use super::tun;
use nix::errno::Errno;
use nix::net::if_::if_nametoindex;
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket};
use std::os::fd::AsRawFd;

const IFLA_TXQLEN: u16 = 13;
const IFLA_GROUP: u16 = 27;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INET6_ADDR_GEN_MODE: u16 = 8;

/// What the kernel says to it; None: that is for `ip`.
pub fn here(words: &str) -> Option<Result<(), Errno>> {
    let words: Vec<&str> = words.split_whitespace().collect();
    match words.as_slice() {
        ["link", "set", "dev", name, words @ ..] | ["link", "set", name, words @ ..] => set(name, words),
        ["link", "add", "name", name, words @ ..] | ["link", "add", name, words @ ..] => add_bridge(name, words),
        ["link", "del", "group", number] => {
            let mut request = Request::new(libc::RTM_DELLINK, 0, 0);
            request.attribute(IFLA_GROUP, &number.parse::<u32>().ok()?.to_ne_bytes());
            Some(request.send())
        }
        ["link", "del", name] | ["link", "del", name, "type", _] => {
            Some(if_nametoindex(*name).and_then(|index| Request::new(libc::RTM_DELLINK, 0, index).send()))
        }
        ["tuntap", "add", name, "mode", "tap", words @ ..] => {
            const EXCLUSIVE: u16 = 0x8000;
            Some(tun::open(name, tap_flags(words)? | EXCLUSIVE).and_then(|queue| tun::try_set_persist(&queue, true)))
        }
        ["tuntap", "del", "dev", name, "mode", "tap", words @ ..] => {
            Some(tun::open(name, tap_flags(words)?).and_then(|queue| tun::try_set_persist(&queue, false)))
        }
        _ => None,
    }
}

fn tap_flags(words: &[&str]) -> Option<u16> {
    let mut flags = tun::TAP | tun::NO_PI;
    for word in words {
        match *word {
            "pi" => flags &= !tun::NO_PI,
            "vnet_hdr" => flags |= tun::VNET_HDR,
            "multi_queue" => flags |= tun::MULTI_QUEUE,
            _ => return None,
        }
    }
    Some(flags)
}

fn set(name: &str, words: &[&str]) -> Option<Result<(), Errno>> {
    let index = match if_nametoindex(name) {
        Ok(index) => index,
        Err(errno) => return Some(Err(errno)),
    };
    let mut request = Request::new(libc::RTM_NEWLINK, 0, index);
    match request.settings(words)? {
        Ok([]) => Some(request.send()),
        Ok(_) => None,
        Err(errno) => Some(Err(errno)),
    }
}

/// A bridge as it comes.
fn add_bridge(name: &str, words: &[&str]) -> Option<Result<(), Errno>> {
    let mut request = Request::new(libc::RTM_NEWLINK, libc::NLM_F_CREATE | libc::NLM_F_EXCL, 0);
    request.attribute(libc::IFLA_IFNAME, &text(name));
    match request.settings(words)? {
        Ok(["type", "bridge"]) => {
            let kind = attribute(IFLA_INFO_KIND, &text("bridge"));
            request.attribute(libc::IFLA_LINKINFO, &kind);
            Some(request.send())
        }
        Ok(_) => None,
        Err(errno) => Some(Err(errno)),
    }
}

/// Behind the header of netlink a `struct ifinfomsg` and attributes.
struct Request(Vec<u8>);

impl Request {
    fn new(kind: u16, flags: i32, index: u32) -> Self {
        let mut bytes = vec![0; 4]; // the length, known at the end
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(((libc::NLM_F_REQUEST | libc::NLM_F_ACK | flags) as u16).to_ne_bytes());
        bytes.extend([0; 12]); // any sequence number, any port, any family and type
        bytes.extend(index.to_ne_bytes());
        bytes.extend([0; 8]); // flags and which of them
        Self(bytes)
    }

    fn attribute(&mut self, kind: u16, value: &[u8]) {
        self.0.extend(attribute(kind, value));
    }

    /// Puts in what `ip link set` takes; returns the words that are none of that, from the first of them on.
    fn settings<'a, 'b>(&mut self, mut words: &'a [&'b str]) -> Option<Result<&'a [&'b str], Errno>> {
        loop {
            let (kind, value) = match words {
                ["address", value, ..] => {
                    let bytes: Result<Vec<_>, _> = value.split(':').map(|byte| u8::from_str_radix(byte, 16)).collect();
                    (libc::IFLA_ADDRESS, bytes.ok()?)
                }
                ["mtu", value, ..] => (libc::IFLA_MTU, number(value)?),
                ["txqueuelen", value, ..] => (IFLA_TXQLEN, number(value)?),
                ["group", value, ..] => (IFLA_GROUP, number(value)?),
                ["addrgenmode", "none", ..] => {
                    let mode = attribute(IFLA_INET6_ADDR_GEN_MODE, &[1]);
                    (libc::IFLA_AF_SPEC, attribute(libc::AF_INET6 as u16, &mode))
                }
                ["alias", value, ..] => (libc::IFLA_IFALIAS, value.as_bytes().to_vec()),
                ["name", value, ..] => (libc::IFLA_IFNAME, text(value)),
                ["master", value, ..] => match if_nametoindex(*value) {
                    Ok(index) => (libc::IFLA_MASTER, index.to_ne_bytes().to_vec()),
                    Err(errno) => return Some(Err(errno)),
                },
                ["index", value, ..] => {
                    self.0[20..24].copy_from_slice(&number(value)?);
                    words = &words[2..];
                    continue;
                }
                ["nomaster", rest @ ..] => {
                    self.attribute(libc::IFLA_MASTER, &[0; 4]);
                    words = rest;
                    continue;
                }
                [up @ ("up" | "down"), rest @ ..] => {
                    let flag = libc::IFF_UP as u32;
                    self.0[24..28].copy_from_slice(&(if *up == "up" { flag } else { 0 }).to_ne_bytes());
                    self.0[28..32].copy_from_slice(&flag.to_ne_bytes());
                    words = rest;
                    continue;
                }
                rest => return Some(Ok(rest)),
            };
            self.attribute(kind, &value);
            words = &words[2..];
        }
    }

    fn send(mut self) -> Result<(), Errno> {
        let len = self.0.len() as u32;
        self.0[..4].copy_from_slice(&len.to_ne_bytes());
        let socket = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::NetlinkRoute)?;
        send(socket.as_raw_fd(), &self.0, MsgFlags::empty())?;
        let mut answer = [0; 4096];
        recv(socket.as_raw_fd(), &mut answer, MsgFlags::empty())?;
        match i32::from_ne_bytes(answer[16..20].try_into().unwrap()) {
            0 => Ok(()),
            errno => Err(Errno::from_raw(-errno)),
        }
    }
}

fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let len = 4 + value.len();
    let mut bytes = (len as u16).to_ne_bytes().to_vec();
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(value);
    bytes.resize(len.next_multiple_of(4), 0);
    bytes
}

fn number(word: &str) -> Option<Vec<u8>> {
    word.parse::<u32>().ok().map(|number| number.to_ne_bytes().to_vec())
}

fn text(word: &str) -> Vec<u8> {
    [word.as_bytes(), b"\0"].concat()
}
