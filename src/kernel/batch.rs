//! Many messages in few system calls: requests that are sent together, and answers that are received together.

use super::attr::Request;
use super::netlink::{BUFFER, Netlink, Refusal, is_shortage, messages};
use netlink_packet_core::NLM_F_REQUEST;
use nix::errno::Errno;
use std::os::fd::AsRawFd;

/// Answers that surely fit into a socket's receive buffer as the kernel makes it (net.core.rmem_default, 208 KiB), where
/// each takes up to 4.5 KiB.
const TOGETHER: usize = 40;
/// Parts of a dump that are received by one system call.
const PARTS: usize = 16;

/// What the kernel says to one request of many: the payload of its answer, None for a mere acknowledgement.
pub(crate) type Answer = Result<Option<Vec<u8>>, Refusal>;

/// A request that asks.
pub(crate) fn question(message_type: u16, family_header: &[u8]) -> Request {
    Request::new(message_type, NLM_F_REQUEST, family_header)
}

/// Room for several messages.
#[derive(Debug)]
pub(super) struct Parts {
    room: Vec<u8>,
    lens: Vec<usize>,
}

impl Parts {
    /// For so many messages at a time, within limits.
    pub(super) fn new(messages: usize) -> Self {
        Self { room: vec![0; messages.clamp(1, PARTS).saturating_mul(BUFFER)], lens: Vec::new() }
    }

    /// Each message that has been received from the kernel.
    pub(super) fn each(&self) -> impl Iterator<Item = &[u8]> {
        self.room.chunks(BUFFER).zip(&self.lens).filter_map(|(part, len)| part.get(..*len)).filter(|part| !part.is_empty())
    }

    /// Receives what is there. ENOBUFS: nothing is, so that what was expected was lost.
    pub(super) fn receive(&mut self, netlink: &Netlink) -> Result<(), Errno> {
        // that something was lost is told before what was not
        let result = match self.receive_now(netlink) {
            Err(errno) if is_shortage(errno) => self.receive_now(netlink),
            result => result,
        };
        result.map_err(|errno| if errno == Errno::EAGAIN { Errno::ENOBUFS } else { errno })
    }

    /// recvmmsg(2), without waiting.
    fn receive_now(&mut self, netlink: &Netlink) -> Result<(), Errno> {
        // SAFETY: sockaddr_nl is plain C data, for which all zero bytes are a value
        let mut senders: [libc::sockaddr_nl; PARTS] = unsafe { std::mem::zeroed() };
        let mut vectors: Vec<libc::iovec> = self
            .room
            .chunks_mut(BUFFER)
            .map(|part| libc::iovec { iov_base: part.as_mut_ptr().cast(), iov_len: part.len() })
            .collect();
        // SAFETY: as above for mmsghdr: no buffers, no name
        let mut headers: [libc::mmsghdr; PARTS] = unsafe { std::mem::zeroed() };
        for ((header, vector), sender) in headers.iter_mut().zip(&mut vectors).zip(&mut senders) {
            header.msg_hdr.msg_iov = vector;
            header.msg_hdr.msg_iovlen = 1;
            header.msg_hdr.msg_name = std::ptr::from_mut(sender).cast();
            header.msg_hdr.msg_namelen = size_of_val(sender).try_into().unwrap_or_default();
        }
        let fd = netlink.socket().as_raw_fd();
        let flags = libc::MSG_DONTWAIT | libc::MSG_TRUNC;
        self.lens.clear();
        let received = loop {
            let many = libc::c_uint::try_from(vectors.len()).unwrap_or_default();
            // SAFETY: the headers describe the buffers of `self` and the senders, which all outlive the call
            let rc = unsafe { libc::recvmmsg(fd, headers.as_mut_ptr(), many, flags as _, std::ptr::null_mut()) };
            match Errno::result(rc) {
                Err(Errno::EINTR) => {}
                result => break usize::try_from(result?).unwrap_or_default(),
            }
        };
        for (header, sender) in headers.iter().zip(&senders).take(received) {
            let len = usize::try_from(header.msg_len).unwrap_or(usize::MAX);
            if len > BUFFER {
                return Err(Errno::EMSGSIZE);
            }
            self.lens.push(if sender.nl_pid == 0 { len } else { 0 }); // else it is not from the kernel
        }
        Ok(())
    }
}

impl Netlink {
    /// Sends all requests, a few dozen with each system call; returns one answer for each, in their order. The kernel
    /// works on one after the other, whatever became of those before.
    pub(crate) fn batch(&mut self, requests: Vec<Request>) -> Result<Vec<Answer>, Errno> {
        let mut answers = Vec::with_capacity(requests.len());
        let mut parts = Parts::new(requests.len());
        let mut requests = requests.into_iter().peekable();
        while requests.peek().is_some() {
            let first = self.sequence_number.wrapping_add(1);
            let mut bytes = Vec::new();
            let mut some: Vec<Option<Answer>> = Vec::new();
            for request in requests.by_ref().take(TOGETHER) {
                self.sequence_number = self.sequence_number.wrapping_add(1);
                bytes.extend(request.finish(self.sequence_number)); // a whole number of words, as the next one needs
                some.push(None);
            }
            self.send_bytes(&bytes)?;
            while some.contains(&None) {
                parts.receive(self)?;
                for part in parts.each() {
                    Self::answers(part, first, &mut some)?;
                }
            }
            answers.extend(some.into_iter().flatten());
        }
        Ok(answers)
    }

    fn answers(part: &[u8], first: u32, some: &mut [Option<Answer>]) -> Result<(), Errno> {
        for message in messages(part) {
            let message = message?;
            let index = usize::try_from(message.sequence_number.wrapping_sub(first)).unwrap_or(usize::MAX);
            let Some(slot) = some.get_mut(index) else { continue };
            let answer = match message.verdict() {
                None => Ok(Some(message.payload.to_vec())),
                Some(Ok(())) => Ok(None),
                Some(Err(refusal)) => Err(refusal),
            };
            slot.get_or_insert(answer);
        }
        Ok(())
    }

    /// All messages of a dump. EINTR: something changed meanwhile.
    pub(super) fn receive_dump(&mut self, parts: &mut Parts, mut each: impl FnMut(&[u8])) -> Result<(), Refusal> {
        let mut interrupted = false;
        loop {
            parts.receive(self)?;
            for message in parts.each().flat_map(|part| self.answers_in(part)) {
                let message = message?;
                interrupted |= message.is_interrupted();
                match message.verdict() {
                    Some(Ok(())) if interrupted => return Err(Errno::EINTR.into()),
                    Some(verdict) => return verdict,
                    None if message.is_control() => {}
                    None => each(message.payload),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::link::{self, By};

    /// The loopback device a hundred times, with and without room for that many answers.
    #[test]
    fn answers_without_room_are_asked_for_again() {
        for room in [None, Some(2048_i32)] {
            let mut netlink = Netlink::open().unwrap();
            if let Some(room) = room {
                netlink.socket().set_rx_buf_sz(room).unwrap();
            }
            let links = link::get_each(&mut netlink, std::iter::repeat_n(By::Index(1), 100), true).unwrap();
            assert_eq!(links.len(), 100);
            assert!(links.iter().flatten().all(|link| link.ifindex == 1 && link.stats.is_some()));
        }
    }

    #[test]
    fn each_has_its_own_answer() {
        let mut netlink = Netlink::open().unwrap();
        let question = |index| question(libc::RTM_GETLINK, &link::ifinfomsg(index, 0, 0));
        let answers = netlink.batch(vec![question(i32::MAX), question(1), question(i32::MAX)]).unwrap();
        let errnos = answers.iter().map(|answer| answer.as_ref().err().map(|refusal| refusal.errno));
        assert!(errnos.eq([Some(Errno::ENODEV), None, Some(Errno::ENODEV)]), "{answers:?}");
    }
}
