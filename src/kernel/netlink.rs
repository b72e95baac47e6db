//! A rtnetlink socket: one request, its answer, and the kernel's own words when it refuses.
//!
//! An answer can get lost when memory is short, or when the socket's buffer has no room for it (ENOBUFS). Then the request
//! is sent again: all of ours either ask, or ask for a state that may be there already. What a deletion says that was done
//! already (ENODEV, ENOENT), the callers take for what it is.

use super::attr::{self, HEADER_LEN, Request};
use super::batch::Parts;
use super::sys::io_errno as errno;
use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CAPPED, NLM_F_CREATE, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REPLACE, NLM_F_REQUEST, NLMSG_DONE, NLMSG_ERROR,
    NLMSG_NOOP, NetlinkBuffer,
};
use netlink_sys::{
    Socket,
    protocols::{NETLINK_GENERIC, NETLINK_ROUTE},
};
use nix::errno::Errno;
use std::fmt;

/// Larger than any single message about a link; the kernel fills dumps in parts of at most 32 KiB (`NLMSG_GOODSIZE`
/// and `netlink_dump()` in net/netlink/af_netlink.c).
pub(super) const BUFFER: usize = 32 * 1024;
/// `NLMSGERR_ATTR_MSG`, the text of an extended acknowledgement (linux/netlink.h).
const NLMSGERR_ATTR_MSG: u16 = 1;
/// Types below are those of netlink itself.
const NLMSG_MIN_TYPE: u16 = 0x10;
/// How often a dump is begun that is interrupted by changes.
const DUMP_TRIES: u32 = 8;
/// How often anything is tried that fails for want of memory.
const TRIES: u32 = 3;

/// Is it memory that was missing?
pub(super) fn is_shortage(errno: Errno) -> bool {
    matches!(errno, Errno::ENOBUFS | Errno::ENOMEM)
}

/// Why the kernel refused a request: the errno, and the text of its extended acknowledgement if it sent one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub errno: Errno,
    pub reason: Option<Box<str>>,
}

impl From<Errno> for Refusal {
    fn from(errno: Errno) -> Self {
        Self { errno, reason: None }
    }
}

impl From<Refusal> for Errno {
    fn from(refusal: Refusal) -> Self {
        refusal.errno
    }
}

/// For the end of a text: ` (the kernel says: ...)`, or nothing.
impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.reason.as_ref().map_or(Ok(()), |reason| write!(f, " (the kernel says: {reason})"))
    }
}

/// What a look into the socket has found.
#[derive(Debug)]
pub(super) enum Received {
    /// The payload of a message that answers.
    Message(Vec<u8>),
    Acknowledged,
    /// No answer: there is none yet, or it was lost.
    Nothing,
}

/// A rtnetlink (or generic netlink) socket in the caller's network namespace, close-on-exec.
#[derive(Debug)]
pub(crate) struct Netlink {
    socket: Socket,
    pub(super) sequence_number: u32,
}

impl Netlink {
    pub(crate) fn open() -> Result<Self, Errno> {
        Ok(Self { socket: Socket::new(NETLINK_ROUTE).map_err(errno)?, sequence_number: 0 })
    }

    pub(super) fn open_generic() -> Result<Self, Errno> {
        Ok(Self { socket: Socket::new(NETLINK_GENERIC).map_err(errno)?, sequence_number: 0 })
    }

    /// The socket, for options and for ioctls that any socket answers.
    pub(crate) fn socket(&self) -> &Socket {
        &self.socket
    }

    /// Asks for extended acknowledgements: from now on a refusal carries the kernel's reason.
    pub(crate) fn want_reasons(&self) -> Result<(), Errno> {
        self.socket.set_ext_ack(true).map_err(errno)
    }

    /// Sends a get request; returns the payload of the one message that answers it.
    pub(crate) fn get(
        &mut self,
        message_type: u16,
        family_header: &[u8],
        fill: impl FnOnce(&mut Request),
    ) -> Result<Vec<u8>, Refusal> {
        let mut request = Request::new(message_type, NLM_F_REQUEST, family_header);
        fill(&mut request);
        self.answer(&request)
    }

    fn answer(&mut self, request: &Request) -> Result<Vec<u8>, Refusal> {
        self.until_answered(request, |netlink| match netlink.receive()? {
            Received::Message(payload) => Ok(Some(payload)),
            Received::Acknowledged => Err(Errno::EBADMSG.into()),
            Received::Nothing => Ok(None),
        })
    }

    /// Sends a request that changes something and waits for the acknowledgement.
    pub(crate) fn change(
        &mut self,
        message_type: u16,
        family_header: &[u8],
        fill: impl FnOnce(&mut Request),
    ) -> Result<(), Refusal> {
        let mut request = Request::new(message_type, NLM_F_REQUEST | NLM_F_ACK, family_header);
        fill(&mut request);
        self.acknowledged(&request)
    }

    /// The same for something that is to be there afterwards, whether or not it is there now.
    pub(crate) fn put(
        &mut self,
        message_type: u16,
        family_header: &[u8],
        fill: impl FnOnce(&mut Request),
    ) -> Result<(), Refusal> {
        let flags = NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE;
        let mut request = Request::new(message_type, flags, family_header);
        fill(&mut request);
        self.acknowledged(&request)
    }

    fn acknowledged(&mut self, request: &Request) -> Result<(), Refusal> {
        self.until_answered(request, |netlink| {
            loop {
                match netlink.receive()? {
                    Received::Message(_) => {} // an answer before the acknowledgement is not asked for
                    Received::Acknowledged => return Ok(Some(())),
                    Received::Nothing => return Ok(None),
                }
            }
        })
    }

    /// Sends a request until `answer` has got one. An answer to an earlier try has another number, and is passed over.
    fn until_answered<T>(
        &mut self,
        request: &Request,
        answer: impl Fn(&mut Self) -> Result<Option<T>, Refusal>,
    ) -> Result<T, Refusal> {
        let mut why = Refusal::from(Errno::ENOBUFS);
        for _ in 0..TRIES {
            self.send(request)?;
            match answer(self) {
                Ok(Some(answer)) => return Ok(answer),
                Ok(None) => {}
                Err(refusal) if is_shortage(refusal.errno) => why = refusal,
                Err(refusal) => return Err(refusal),
            }
        }
        Err(why)
    }

    /// Dumps a table, one call of `each` for a message. Starts over when something changed meanwhile: `each` is told
    /// by `None`, and has to forget what it has.
    pub(crate) fn dump(
        &mut self,
        message_type: u16,
        family_header: &[u8],
        fill: impl Fn(&mut Request),
        mut each: impl FnMut(Option<&[u8]>),
    ) -> Result<(), Refusal> {
        let mut request = Request::new(message_type, NLM_F_REQUEST | NLM_F_DUMP, family_header);
        fill(&mut request);
        self.until_dumped(&request, &mut each)
    }

    fn until_dumped(&mut self, request: &Request, each: &mut dyn FnMut(Option<&[u8]>)) -> Result<(), Refusal> {
        let mut parts = Parts::new(usize::MAX);
        let mut shortages = 0_u32;
        for _ in 0..DUMP_TRIES {
            self.send(request)?;
            match self.receive_dump(&mut parts, |payload| each(Some(payload))) {
                Err(Refusal { errno: Errno::EINTR, .. }) => each(None),
                Err(refusal) if is_shortage(refusal.errno) || refusal.errno == Errno::EBUSY => {
                    shortages = shortages.saturating_add(1);
                    if shortages == TRIES {
                        return Err(refusal);
                    }
                    each(None);
                    self.forget();
                }
                result => return result,
            }
        }
        Err(Errno::EAGAIN.into())
    }

    /// Ends a dump that was given up, without which there is no other (EBUSY). The kernel goes on with a dump when the next
    /// message is received, so that one is asked for: the acknowledgement of nothing (`netlink_recvmsg()`).
    fn forget(&mut self) {
        let nothing = Request::new(NLMSG_NOOP, NLM_F_REQUEST | NLM_F_ACK, &[]);
        let mut shortages = 0_u32;
        if self.send(&nothing).is_ok() {
            while shortages < TRIES {
                match self.receive_datagram(&mut Vec::with_capacity(BUFFER)) {
                    Ok(_) | Err(Errno::EMSGSIZE) => {}
                    Err(errno) if is_shortage(errno) => shortages = shortages.saturating_add(1),
                    Err(_) => return, // there is no more
                }
            }
        }
    }

    fn send(&mut self, request: &Request) -> Result<(), Refusal> {
        self.sequence_number = self.sequence_number.wrapping_add(1);
        let bytes = request.finish(self.sequence_number);
        self.send_bytes(&bytes).map_err(Into::into)
    }

    /// What cannot be sent, the kernel has not begun to work on.
    pub(super) fn send_bytes(&self, bytes: &[u8]) -> Result<(), Errno> {
        let mut shortages = 0_u32;
        loop {
            match self.socket.send(bytes, 0).map_err(errno) {
                Ok(sent) if sent == bytes.len() => return Ok(()),
                Ok(_) => return Err(Errno::EMSGSIZE),
                Err(Errno::EINTR) => {}
                Err(e) if is_shortage(e) && shortages < TRIES => shortages = shortages.saturating_add(1),
                Err(e) => return Err(e),
            }
        }
    }

    /// The answer to the last request. The kernel has queued it by the time that the request is sent (rtnetlink works in the
    /// caller's context), so that nothing here ever blocks: nothing means that it was lost.
    pub(super) fn receive(&mut self) -> Result<Received, Refusal> {
        let mut buffer = Vec::with_capacity(BUFFER);
        let mut shortages = 0_u32;
        loop {
            match self.receive_datagram(&mut buffer) {
                Ok(true) => {}
                Ok(false) => continue, // not from the kernel
                Err(Errno::EAGAIN) => return Ok(Received::Nothing),
                // that something was lost is told before what was not
                Err(e) if is_shortage(e) && shortages < TRIES => {
                    shortages = shortages.saturating_add(1);
                    continue;
                }
                Err(e) => return Err(e.into()),
            }
            for message in self.answers_in(&buffer) {
                let message = message?;
                match message.verdict() {
                    Some(verdict) => return verdict.map(|()| Received::Acknowledged),
                    None if message.is_control() => {}
                    None => return Ok(Received::Message(message.payload.to_vec())),
                }
            }
        }
    }

    /// Says whether it is from the kernel.
    fn receive_datagram(&self, buffer: &mut Vec<u8>) -> Result<bool, Errno> {
        loop {
            buffer.clear();
            match self.socket.recv_from(buffer, libc::MSG_DONTWAIT | libc::MSG_TRUNC).map_err(errno) {
                Ok((len, _)) if len > buffer.len() => return Err(Errno::EMSGSIZE),
                Ok((_, sender)) => return Ok(sender.port_number() == 0),
                Err(Errno::EINTR) => {}
                Err(e) => return Err(e),
            }
        }
    }

    /// The messages that answer the last request; others answer one that was given up.
    pub(super) fn answers_in<'a>(&self, bytes: &'a [u8]) -> impl Iterator<Item = Result<Message<'a>, Errno>> {
        let current = self.sequence_number;
        messages(bytes).filter(move |message| message.as_ref().map_or(true, |message| message.sequence_number == current))
    }
}

/// One message out of what was received.
#[derive(Debug)]
pub(crate) struct Message<'a> {
    kind: u16,
    flags: u16,
    pub(super) sequence_number: u32,
    pub(crate) payload: &'a [u8],
}

/// The messages in what was received; the last is EBADMSG if it was cut short.
pub(crate) fn messages(mut bytes: &[u8]) -> impl Iterator<Item = Result<Message<'_>, Errno>> {
    std::iter::from_fn(move || {
        if bytes.is_empty() {
            return None;
        }
        let message = Message::first_in(bytes);
        let len = message.as_ref().map_or(usize::MAX, |message| message.payload.len().saturating_add(HEADER_LEN));
        bytes = bytes.get(len.saturating_add(3) & !3..).unwrap_or_default();
        Some(message.ok_or(Errno::EBADMSG))
    })
}

impl<'a> Message<'a> {
    fn first_in(bytes: &'a [u8]) -> Option<Self> {
        let message = NetlinkBuffer::new_checked(bytes).ok()?;
        let payload = bytes.get(HEADER_LEN..usize::try_from(message.length()).ok()?)?;
        let (kind, flags, sequence_number) = (message.message_type(), message.flags(), message.sequence_number());
        Some(Self { kind, flags, sequence_number, payload })
    }

    /// Neither an answer nor a verdict: NLMSG_NOOP and the like, of which there may be more some day.
    pub(super) fn is_control(&self) -> bool {
        self.kind < NLMSG_MIN_TYPE
    }

    /// Something changed while the table was dumped.
    pub(super) fn is_interrupted(&self) -> bool {
        self.flags & NLM_F_DUMP_INTR != 0
    }

    /// How it ends, if it ends with this message: an acknowledgement, a refusal, or the end of a dump.
    pub(crate) fn verdict(&self) -> Option<Result<(), Refusal>> {
        let code = match self.kind {
            NLMSG_ERROR => attr::i32_at(self.payload, 0).ok_or(Errno::EBADMSG),
            NLMSG_DONE => Ok(attr::i32_at(self.payload, 0).filter(|code| *code < 0).unwrap_or_default()),
            _ => return None,
        };
        Some(match code {
            Ok(0) => Ok(()),
            Ok(code) => Err(Refusal { errno: Errno::from_raw(code.saturating_neg()), reason: self.reason() }),
            Err(errno) => Err(errno.into()),
        })
    }

    /// In an NLMSG_ERROR message: struct nlmsgerr {int error; struct nlmsghdr}, then, with NLM_F_ACK_TLVS, attributes.
    /// With NLM_F_CAPPED the request's payload is not repeated between the two.
    fn reason(&self) -> Option<Box<str>> {
        const ERROR: usize = 4;
        if self.kind != NLMSG_ERROR {
            return None;
        }
        let request_len = attr::u32_at(self.payload, ERROR).and_then(|len| usize::try_from(len).ok()).unwrap_or_default();
        let echoed = if self.flags & NLM_F_CAPPED == 0 { request_len } else { HEADER_LEN };
        let tlvs = self.payload.get(echoed.saturating_add(ERROR).saturating_add(3) & !3..)?;
        attr::find(tlvs, NLMSGERR_ATTR_MSG).and_then(attr::string).map(Into::into)
    }
}

#[cfg(test)]
mod tests {
    use super::super::link::{self, By, ifinfomsg};
    use super::*;
    use crate::kernel::IfName;
    use nix::sched::{CloneFlags, unshare};
    use std::io::Write;
    use std::process::{Command, Stdio};

    fn question() -> Request {
        Request::new(libc::RTM_GETLINK, NLM_F_REQUEST, &ifinfomsg(1, 0, 0))
    }

    fn in_namespace(test: impl FnOnce(&mut Netlink) + Send + 'static) {
        let run = move || {
            unshare(CloneFlags::CLONE_NEWNET).expect("needs CAP_SYS_ADMIN");
            test(&mut Netlink::open().unwrap());
        };
        std::thread::spawn(run).join().unwrap();
    }

    /// A socket that has no room for another answer, as the kernel has just found.
    fn fill(netlink: &mut Netlink) {
        netlink.socket().set_rx_buf_sz(2048_i32).unwrap();
        for _ in 0..100 {
            netlink.send(&question()).unwrap();
        }
    }

    #[test]
    fn a_lost_answer_is_asked_for_again() {
        let mut netlink = Netlink::open().unwrap();
        for _ in 0..3 {
            fill(&mut netlink);
            let lo = link::get(&mut netlink, By::Index(1)).unwrap().unwrap();
            assert_eq!(lo.name, Some(IfName::new(b"lo").unwrap()));
        }
        fill(&mut netlink);
        assert_eq!(link::get(&mut netlink, By::Index(i32::MAX)).unwrap(), None);
    }

    #[test]
    fn a_lost_acknowledgement_too() {
        in_namespace(|netlink| {
            fill(netlink);
            link::set(netlink, 1, link::IFF_UP, link::IFF_UP, |_| {}).unwrap();
            assert!(link::get(netlink, By::Index(1)).unwrap().unwrap().is_up());
            fill(netlink);
            assert_eq!(link::set(netlink, i32::MAX, 0, 0, |_| {}).unwrap_err().errno, Errno::ENODEV);
            fill(netlink);
            assert_eq!(link::delete(netlink, 1).unwrap_err().errno, Errno::EOPNOTSUPP);
        });
    }

    /// A dump that nobody receives to its end is in the way of the next one.
    #[test]
    fn a_dump_that_was_given_up() {
        in_namespace(|netlink| {
            let script: Vec<_> = (0..50).map(|i| format!("link add b{i} type bridge\n")).collect();
            let mut ip = Command::new("ip").args(["-batch", "-"]).stdin(Stdio::piped()).spawn().expect("ip");
            ip.stdin.take().unwrap().write_all(script.concat().as_bytes()).unwrap();
            assert!(ip.wait().unwrap().success());
            let begin = Request::new(libc::RTM_GETLINK, NLM_F_REQUEST | NLM_F_DUMP, &ifinfomsg(0, 0, 0));
            netlink.send(&begin).unwrap();
            for fill_it in [false, true] {
                if fill_it {
                    fill(netlink);
                }
                netlink.forget();
                let mut found = 0;
                netlink.send(&begin).unwrap();
                netlink.receive_dump(&mut Parts::new(16), |_| found += 1).unwrap();
                assert_eq!(found, 51);
                netlink.send(&begin).unwrap();
                link::dump(netlink, |link| found = if link.is_some() { found + 1 } else { 0 }).unwrap();
                assert_eq!(found, 51);
                netlink.send(&begin).unwrap();
            }
        });
    }
}
