//! Removing links without waiting until the kernel has freed them.
//!
//! RTM_DELLINK takes a device out of everything, its name and index with it, in about 0.2 ms, and then waits some 15 ms
//! for RCU before it returns (`netdev_run_todo()`). That wait is left to a thread which does nothing but this one system
//! call. The first answer says that the device goes: the kernel's own news of it, sent to the one who asked because of
//! NLM_F_ECHO (Linux 6.2), or the refusal. An older kernel sends only the acknowledgement, after the wait.
//!
//! The thread holds no lock and no file: the number that it hands to the kernel is looked up before the kernel can answer,
//! so the socket may be closed afterwards. No signal is delivered to it. A process that ends meanwhile waits as it would
//! have in the call, and a forked child has nothing of it. Where no thread can be had, the call waits itself.

use super::attr::Request;
use super::netlink::{Netlink, Received, Refusal, is_shortage};
use super::sys::{start_thread, uninterrupted};
use netlink_packet_core::{NLM_F_ACK, NLM_F_ECHO, NLM_F_REQUEST};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, poll};
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::thread::JoinHandle;

/// How long to wait for an answer before looking whether the thread could send the request at all.
const LOOK: u16 = 100;

/// A thread that is in the kernel with a request of ours, or will be.
#[derive(Debug)]
pub(crate) struct Sender(JoinHandle<Result<(), Errno>>);

impl Sender {
    pub(crate) fn is_over(&self) -> bool {
        self.0.is_finished()
    }

    /// Waits for it; what came of the sending.
    pub(crate) fn join(self) -> Result<(), Errno> {
        self.0.join().unwrap_or(Err(Errno::EFAULT))
    }
}

impl Netlink {
    /// Like [`change`](Netlink::change), but returns at the kernel's first answer. True: that was not the last one, and
    /// the thread may still be in the kernel.
    pub(super) fn change_early(&mut self, message_type: u16, family_header: &[u8]) -> Result<bool, Refusal> {
        let request = Request::new(message_type, NLM_F_REQUEST | NLM_F_ACK | NLM_F_ECHO, family_header);
        let bytes = self.together(&[request]);
        let first = self.send_aside(bytes).map(|sender| self.first_answer(sender));
        match first {
            Some(Ok((news, _))) => Ok(news),
            Some(Err(refusal)) if !is_shortage(refusal.errno) => Err(refusal),
            // no thread, not sent, or the answer was lost: whoever asks again hears of what was done
            _ => self.change(message_type, family_header, |_| {}).map(|()| false),
        }
    }

    /// The requests as they are sent with one system call, all with the same sequence number.
    pub(super) fn together(&mut self, requests: &[Request]) -> Vec<u8> {
        self.sequence_number = self.sequence_number.wrapping_add(1);
        requests.iter().flat_map(|request| request.finish(self.sequence_number)).collect()
    }

    /// Has them sent by a thread; None: there is no thread to be had.
    pub(super) fn send_aside(&self, bytes: Vec<u8>) -> Option<Sender> {
        send_from_thread(self.socket().as_raw_fd(), bytes)
    }

    /// Waits for the first answer to what the thread sends: by then it needs our socket no more, nor if that fails. True: it
    /// is a message, and the acknowledgement is to come.
    pub(super) fn first_answer(&mut self, sender: Sender) -> Result<(bool, Sender), Refusal> {
        loop {
            let over = sender.is_over();
            match self.receive() {
                Ok(Received::Message(_)) => return Ok((true, sender)),
                Ok(Received::Acknowledged) => return Ok((false, sender)),
                Ok(Received::Nothing) if !over => self.wait_for_answer(),
                answer => {
                    let sent = sender.join();
                    return Err(answer.err().unwrap_or_else(|| sent.err().unwrap_or(Errno::ENOBUFS).into()));
                }
            }
        }
    }

    fn wait_for_answer(&self) {
        // SAFETY: the socket is open as long as `self` lives
        let socket = unsafe { BorrowedFd::borrow_raw(self.socket().as_raw_fd()) };
        let _ = poll(&mut [PollFd::new(socket, PollFlags::POLLIN)], LOOK); // whatever it says, the next look tells
    }
}

/// Starts a thread that sends the bytes with a single system call, and ends with what came of that. None: there is no
/// thread to be had.
fn send_from_thread(fd: RawFd, bytes: Vec<u8>) -> Option<Sender> {
    let send = Box::new(move || {
        uninterrupted(|| {
            // SAFETY: the bytes live until the call is over. The file is open until the kernel has answered the request, for
            // which it has to have looked it up; should the call fail, the caller joins this thread before it closes anything.
            Errno::result(unsafe { libc::send(fd, bytes.as_ptr().cast(), bytes.len(), 0) }).map(drop)
        })
    });
    start_thread(send).ok().map(Sender)
}
