//! A rtnetlink socket: one request, its answer, and the kernel's own words when it refuses.

use super::attr::{self, HEADER_LEN, Request};
use super::batch::Parts;
use super::sys::io_errno as errno;
use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CAPPED, NLM_F_CREATE, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REPLACE, NLM_F_REQUEST, NLMSG_DONE, NLMSG_ERROR,
    NLMSG_NOOP, NetlinkBuffer,
};
use netlink_sys::{Socket, protocols::NETLINK_ROUTE};
use nix::errno::Errno;
use std::fmt;

/// Larger than any single message about a link; the kernel fills dumps in parts of at most 32 KiB (`NLMSG_GOODSIZE`
/// and `netlink_dump()` in net/netlink/af_netlink.c).
pub(super) const BUFFER: usize = 32 * 1024;
/// `NLMSGERR_ATTR_MSG`, the text of an extended acknowledgement (linux/netlink.h).
const NLMSGERR_ATTR_MSG: u16 = 1;
/// How often a dump that was interrupted by a change is repeated.
const DUMP_TRIES: u32 = 8;

/// Why the kernel refused a request: the errno, and the text of its extended acknowledgement if it sent one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub errno: Errno,
    pub reason: Option<String>,
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

/// A rtnetlink socket in the caller's network namespace, close-on-exec.
#[derive(Debug)]
pub(crate) struct Netlink {
    socket: Socket,
    pub(super) sequence_number: u32,
}

impl Netlink {
    pub(crate) fn open() -> Result<Self, Errno> {
        Ok(Self { socket: Socket::new(NETLINK_ROUTE).map_err(errno)?, sequence_number: 0 })
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
        self.send(request)?;
        self.receive()?.ok_or_else(|| Errno::EBADMSG.into())
    }

    /// Sends a request that changes something and waits for the acknowledgement.
    pub(crate) fn change(
        &mut self,
        message_type: u16,
        family_header: &[u8],
        fill: impl FnOnce(&mut Request),
    ) -> Result<(), Refusal> {
        self.acknowledged(Request::new(message_type, NLM_F_REQUEST | NLM_F_ACK, family_header), fill)
    }

    /// The same for something that is to be there afterwards, whether or not it is there now.
    pub(crate) fn put(
        &mut self,
        message_type: u16,
        family_header: &[u8],
        fill: impl FnOnce(&mut Request),
    ) -> Result<(), Refusal> {
        let flags = NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE;
        self.acknowledged(Request::new(message_type, flags, family_header), fill)
    }

    fn acknowledged(&mut self, mut request: Request, fill: impl FnOnce(&mut Request)) -> Result<(), Refusal> {
        fill(&mut request);
        self.send(request)?;
        while self.receive()?.is_some() {} // an answer before the acknowledgement is not asked for
        Ok(())
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
        let mut parts = Parts::new(usize::MAX);
        for _ in 0..DUMP_TRIES {
            let mut request = Request::new(message_type, NLM_F_REQUEST | NLM_F_DUMP, family_header);
            fill(&mut request);
            self.send(request)?;
            match self.receive_dump(&mut parts, |payload| each(Some(payload))) {
                Err(Refusal { errno: Errno::EINTR, .. }) => each(None),
                result => return result,
            }
        }
        Err(Errno::EAGAIN.into())
    }

    fn send(&mut self, request: Request) -> Result<(), Refusal> {
        self.sequence_number = self.sequence_number.wrapping_add(1);
        let bytes = request.finish(self.sequence_number);
        self.send_bytes(&bytes).map_err(Into::into)
    }

    pub(super) fn send_bytes(&self, bytes: &[u8]) -> Result<(), Errno> {
        loop {
            match self.socket.send(bytes, 0).map_err(errno) {
                Ok(sent) if sent == bytes.len() => return Ok(()),
                Ok(_) => return Err(Errno::EMSGSIZE),
                Err(Errno::EINTR) => {}
                Err(e) => return Err(e),
            }
        }
    }

    /// The answer, None for a mere acknowledgement. The kernel has queued the answer by the time that the
    /// request is sent (rtnetlink works in the caller's context), so that nothing here ever blocks: no message means
    /// that it was lost.
    pub(super) fn receive(&mut self) -> Result<Option<Vec<u8>>, Refusal> {
        let mut buffer = Vec::with_capacity(BUFFER);
        loop {
            buffer.clear();
            let (len, sender) = match self.socket.recv_from(&mut buffer, libc::MSG_DONTWAIT | libc::MSG_TRUNC).map_err(errno) {
                Ok(received) => received,
                Err(Errno::EINTR) => continue,
                Err(e) => return Err(e.into()),
            };
            if sender.port_number() != 0 {
                continue; // not from the kernel
            }
            if len > buffer.len() {
                return Err(Errno::EMSGSIZE.into());
            }
            for message in self.answers_in(&buffer) {
                match message.verdict() {
                    Some(verdict) => return verdict.map(|()| None),
                    None if message.is_noop() => {}
                    None => return Ok(Some(message.payload.to_vec())),
                }
            }
        }
    }

    /// The messages that answer the last request; others answer one that was given up.
    pub(super) fn answers_in<'a>(&self, bytes: &'a [u8]) -> impl Iterator<Item = Message<'a>> {
        let current = self.sequence_number;
        messages(bytes).filter(move |message| message.sequence_number == current)
    }
}

/// One message out of what was received.
#[derive(Debug)]
pub(super) struct Message<'a> {
    kind: u16,
    flags: u16,
    pub(super) sequence_number: u32,
    pub(super) payload: &'a [u8],
}

pub(super) fn messages(mut bytes: &[u8]) -> impl Iterator<Item = Message<'_>> {
    std::iter::from_fn(move || {
        let message = NetlinkBuffer::new_checked(bytes).ok()?;
        let len = usize::try_from(message.length()).unwrap_or(usize::MAX);
        let payload = bytes.get(HEADER_LEN..len).unwrap_or_default();
        let (kind, flags, sequence_number) = (message.message_type(), message.flags(), message.sequence_number());
        bytes = bytes.get(len.saturating_add(3) & !3..).unwrap_or_default();
        Some(Message { kind, flags, sequence_number, payload })
    })
}

impl Message<'_> {
    pub(super) fn is_noop(&self) -> bool {
        self.kind == NLMSG_NOOP
    }

    /// Something changed while the table was dumped.
    pub(super) fn is_interrupted(&self) -> bool {
        self.flags & NLM_F_DUMP_INTR != 0
    }

    /// How it ends, if it ends with this message: an acknowledgement, a refusal, or the end of a dump.
    pub(super) fn verdict(&self) -> Option<Result<(), Refusal>> {
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
    fn reason(&self) -> Option<String> {
        const ERROR: usize = 4;
        if self.kind != NLMSG_ERROR {
            return None;
        }
        let request_len = attr::u32_at(self.payload, ERROR).and_then(|len| usize::try_from(len).ok()).unwrap_or_default();
        let echoed = if self.flags & NLM_F_CAPPED == 0 { request_len } else { HEADER_LEN };
        let tlvs = self.payload.get(echoed.saturating_add(ERROR).saturating_add(3) & !3..)?;
        attr::find(tlvs, NLMSGERR_ATTR_MSG).and_then(attr::string).map(str::to_owned)
    }
}
