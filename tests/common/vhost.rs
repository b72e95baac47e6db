//! vhost-net without a guest: a process plays the virtio driver, and the kernel holds the tap for it.

use super::hostile::drop_all;
use super::process::{Forked, open_files};
use super::skip;
use nix::errno::Errno;
use std::fs::File;
use std::io::{PipeReader, PipeWriter, Read, Write, pipe};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

const DEVICE: &str = "/dev/vhost-net";
/// The transmit queue.
const QUEUE: u32 = 1;
const RING: u16 = 16;
/// Of the header in front of each frame.
pub const HEADER: usize = 10;

/// A process that has given its tap to vhost-net, and has no file of it any more.
pub struct Hypervisor {
    process: Forked,
    commands: PipeWriter,
    answers: PipeReader,
}

impl Hypervisor {
    /// Runs `first` as nobody, gives the queue to vhost-net and closes it. The caller has to close its own file of it.
    pub fn start(queue: &OwnedFd, frame: &[u8], first: impl FnOnce()) -> Self {
        need_vhost();
        let (orders, commands) = pipe().unwrap();
        let (answers, replies) = pipe().unwrap();
        let raw = queue.as_raw_fd();
        let process = Forked::run(|| {
            // SAFETY: in this process, which is a copy of the other, nobody else uses these numbers
            let ours = [raw, commands.as_raw_fd(), answers.as_raw_fd()].map(|fd| unsafe { OwnedFd::from_raw_fd(fd) });
            let [queue, commands, answers] = ours;
            drop((commands, answers));
            let device = open().unwrap();
            drop_all();
            first();
            let mut driver = Driver::new(device, &queue, frame);
            drop(queue);
            close_inherited_taps();
            let (mut orders, mut replies) = (orders, replies);
            loop {
                replies.write_all(b".").unwrap();
                if orders.read(&mut [0]).unwrap() == 0 {
                    return;
                }
                driver.send();
            }
        });
        let hypervisor = Self { process, commands, answers };
        hypervisor.wait();
        hypervisor
    }

    fn wait(&self) {
        assert_eq!((&self.answers).read(&mut [0]).unwrap(), 1, "it has ended");
    }

    /// Its guest sends the frame; returns when vhost-net has taken it, or could not.
    pub fn send(&self) {
        (&self.commands).write_all(b".").unwrap();
        self.wait();
    }

    pub fn pid(&self) -> i32 {
        self.process.pid().as_raw()
    }

    /// It ends, and with it vhost-net's hold of the tap.
    pub fn end(self) {
        drop((self.commands, self.answers));
        self.process.join();
    }
}

/// A guard, above all, which an exec would have closed.
fn close_inherited_taps() {
    for fd in open_files() {
        if std::fs::read_link(format!("/proc/self/fd/{fd}")).unwrap_or_default() == Path::new("/dev/net/tun") {
            nix::unistd::close(fd).unwrap();
        }
    }
}

fn open() -> std::io::Result<File> {
    File::options().read(true).write(true).open(DEVICE)
}

pub fn need_vhost() {
    if let Err(e) = open() {
        skip(&format!("{DEVICE}: {e}"));
    }
}

/// What the guest and vhost-net share: descriptors, the ring of what is to be sent, that of what was sent, the frame.
#[repr(C, align(4096))]
struct Memory {
    descriptors: [Descriptor; RING as usize],
    available: Available,
    _gap: [u8; 64],
    used: Used,
    _gap2: [u8; 64],
    frame: [u8; 2048],
}

#[repr(C, align(16))]
struct Descriptor {
    address: u64,
    len: u32,
    flags: u16,
    next: u16,
}

#[repr(C)]
struct Available {
    flags: u16,
    index: AtomicU16,
    ring: [u16; RING as usize],
    event: u16,
}

#[repr(C, align(4))]
struct Used {
    flags: u16,
    index: AtomicU16,
    ring: [[u32; 2]; RING as usize],
    event: u16,
}

struct Driver {
    _device: File,
    kick: OwnedFd,
    memory: Box<Memory>,
}

impl Driver {
    fn new(device: File, queue: &OwnedFd, frame: &[u8]) -> Self {
        // SAFETY: plain C data, for which all zero bytes are a value
        let mut memory: Box<Memory> = unsafe { Box::new(std::mem::zeroed()) };
        memory.frame[HEADER..HEADER + frame.len()].copy_from_slice(frame);
        memory.descriptors[0].address = (&raw const memory.frame) as u64;
        memory.descriptors[0].len = (HEADER + frame.len()) as u32;
        let (kick, call) = (eventfd(), eventfd());
        let set = |number: u32, bytes: &[u8]| {
            let request = 1 << 30 | (bytes.len() as u32) << 16 | 0xaf << 8 | number; // _IOW(VHOST_VIRTIO, number, bytes)
            // SAFETY: the request reads as many bytes as its number says
            let rc = unsafe { libc::ioctl(device.as_raw_fd(), request as _, bytes.as_ptr()) };
            assert_eq!(Errno::result(rc), Ok(0), "vhost ioctl 0x{number:02x}");
        };
        // SAFETY: VHOST_SET_OWNER takes no argument
        assert_eq!(Errno::result(unsafe { libc::ioctl(device.as_raw_fd(), 0xaf01) }), Ok(0));
        let start = (&raw const *memory) as u64;
        let words = |words: &[u64]| words.iter().flat_map(|word| word.to_ne_bytes()).collect::<Vec<_>>();
        let pair = |a: u32, b: i32| [a.to_ne_bytes(), b.to_ne_bytes()].concat();
        set(0x00, &words(&[0])); // features
        set_memory(&device, &words(&[1, start, size_of::<Memory>() as u64, start, 0]));
        set(0x10, &pair(QUEUE, RING.into())); // size of the rings
        set(0x12, &pair(QUEUE, 0)); // where they begin
        let rings =
            [(&raw const memory.descriptors) as u64, (&raw const memory.used) as u64, (&raw const memory.available) as u64, 0];
        set(0x11, &[pair(QUEUE, 0), words(&rings)].concat());
        set(0x20, &pair(QUEUE, kick.as_raw_fd()));
        set(0x21, &pair(QUEUE, call.as_raw_fd()));
        set(0x30, &pair(QUEUE, queue.as_raw_fd())); // the tap
        Self { _device: device, kick, memory }
    }

    fn send(&mut self) {
        // every entry of the ring stands for descriptor 0
        let next = self.memory.available.index.load(Ordering::Acquire).wrapping_add(1);
        self.memory.available.index.store(next, Ordering::Release);
        assert_eq!(nix::unistd::write(&self.kick, &1_u64.to_ne_bytes()), Ok(8));
        let end = Instant::now() + Duration::from_secs(2);
        while self.memory.used.index.load(Ordering::Acquire) != next && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

/// `VHOST_SET_MEM_TABLE`, whose number tells the size of an empty table.
fn set_memory(device: &File, table: &[u8]) {
    // SAFETY: the request reads the table: the number of regions, and that many of four words
    let rc = unsafe { libc::ioctl(device.as_raw_fd(), 0x4008_af03, table.as_ptr()) };
    assert_eq!(Errno::result(rc), Ok(0));
}

fn eventfd() -> OwnedFd {
    // SAFETY: two numbers
    let fd = Errno::result(unsafe { libc::eventfd(0, libc::EFD_CLOEXEC) }).unwrap();
    // SAFETY: the kernel has just made it for us
    unsafe { OwnedFd::from_raw_fd(fd) }
}
