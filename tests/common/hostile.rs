//! A hypervisor that means harm: no capability, nobody's user id, no way to new privileges, and a queue that it was given.

use super::process::{Forked, NOBODY};
use super::skip;
use nix::errno::Errno;
use std::fs;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use virnetdevtap::state::Fields;

mod raw {
    nix::ioctl_write_int!(tunsetpersist, b'T', 203);
    nix::ioctl_write_int!(tunsetowner, b'T', 204);
    nix::ioctl_write_int!(tunsetlink, b'T', 205);
    nix::ioctl_write_int!(tunsetgroup, b'T', 206);
    nix::ioctl_write_int!(tunsetoffload, b'T', 208);
    nix::ioctl_write_ptr_bad!(tunsettxfilter, nix::request_code_write!(b'T', 209, size_of::<u32>()), super::TxFilter);
    nix::ioctl_write_ptr!(tunattachfilter, b'T', 213, libc::sock_fprog);
    nix::ioctl_write_ptr!(tunsetvnethdrsz, b'T', 216, libc::c_int);
    nix::ioctl_write_ptr!(tunsetvnetle, b'T', 220, libc::c_int);
    nix::ioctl_write_ptr_bad!(tunsetsteeringebpf, nix::request_code_read!(b'T', 224, size_of::<libc::c_int>()), libc::c_int);
    nix::ioctl_write_ptr_bad!(tunsetfilterebpf, nix::request_code_read!(b'T', 225, size_of::<libc::c_int>()), libc::c_int);
    nix::ioctl_write_ptr!(tunsetcarrier, b'T', 226, libc::c_int);
    nix::ioctl_write_ptr_bad!(siocsifhwaddr, libc::SIOCSIFHWADDR, libc::ifreq);
}

#[repr(C)]
pub struct TxFilter {
    flags: u16,
    count: u16,
    mac: [u8; 6],
}

/// Where an attack works.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Any,
    SingleQueue,
    /// Only while the device is down.
    Down,
}

/// One thing that a holder of a queue can change.
pub struct Attack {
    pub name: &'static str,
    pub run: fn(BorrowedFd<'_>, Option<BorrowedFd<'_>>) -> Result<(), Errno>,
    /// What the library can see of it.
    pub seen: Fields,
    pub kind: Kind,
}

const fn attack(
    name: &'static str,
    seen: Fields,
    run: fn(BorrowedFd<'_>, Option<BorrowedFd<'_>>) -> Result<(), Errno>,
) -> Attack {
    Attack { name, run, seen, kind: Kind::Any }
}

/// A CAN device has no address.
const LINK_TYPE: Fields = Fields::LINK_TYPE.union(Fields::MAC);

/// Stays at its address in every process that forks from this one: whoever attaches with the stored pointer finds a program.
static mut DROP_ALL: libc::sock_filter = libc::sock_filter { code: 0x06, jt: 0, jf: 0, k: 0 };

pub const ATTACKS: &[Attack] = &[
    attack("persist", Fields::PERSIST, |fd, _| number(raw::tunsetpersist, fd, 0)),
    attack("owner", Fields::OWNER, |fd, _| number(raw::tunsetowner, fd, NOBODY)),
    attack("group", Fields::GROUP, |fd, _| number(raw::tunsetgroup, fd, NOBODY)),
    attack("MAC", Fields::MAC, |fd, _| mac(fd, [0, 0, 0, 0, 0, 1])),
    attack("header size", Fields::VNET_HDR_SIZE, |fd, _| value(raw::tunsetvnethdrsz, fd, 65000)),
    attack("little-endian", Fields::VNET_ENDIAN, |fd, _| value(raw::tunsetvnetle, fd, 1)),
    attack("offloads", Fields::OFFLOADS, |fd, _| number(raw::tunsetoffload, fd, 0x0f)),
    attack("tx filter", Fields::empty(), |fd, _| {
        let filter = TxFilter { flags: 0, count: 1, mac: [2, 0, 0, 0, 0, 9] };
        // SAFETY: TUNSETTXFILTER reads the filter with its one address
        unsafe { raw::tunsettxfilter(fd.as_raw_fd(), &raw const filter) }.map(drop)
    }),
    attack("socket filter", Fields::FILTERS, |fd, _| {
        let program = libc::sock_fprog { len: 1, filter: &raw mut DROP_ALL };
        // SAFETY: TUNATTACHFILTER reads the program
        unsafe { raw::tunattachfilter(fd.as_raw_fd(), &raw const program) }.map(drop)
    }),
    attack("eBPF filter", Fields::empty(), |fd, program| ebpf(raw::tunsetfilterebpf, fd, program)),
    attack("eBPF steering", Fields::empty(), |fd, program| ebpf(raw::tunsetsteeringebpf, fd, program)),
    Attack { kind: Kind::Down, ..attack("link type", LINK_TYPE, |fd, _| number(raw::tunsetlink, fd, 280)) },
    // the last: without a carrier nothing more can be seen to happen
    attack("carrier", Fields::CARRIER, |fd, _| value(raw::tunsetcarrier, fd, 0)),
];

pub fn attack_named(name: &str) -> &'static Attack {
    ATTACKS.iter().find(|attack| attack.name == name).unwrap()
}

type ByValue = unsafe fn(libc::c_int, nix::sys::ioctl::ioctl_param_type) -> nix::Result<libc::c_int>;
type ByPointer = unsafe fn(libc::c_int, *const libc::c_int) -> nix::Result<libc::c_int>;

fn number(request: ByValue, fd: BorrowedFd<'_>, value: u32) -> Result<(), Errno> {
    // SAFETY: the request takes its argument by value
    unsafe { request(fd.as_raw_fd(), value.into()) }.map(drop)
}

fn value(request: ByPointer, fd: BorrowedFd<'_>, value: i32) -> Result<(), Errno> {
    // SAFETY: the request reads one int
    unsafe { request(fd.as_raw_fd(), &raw const value) }.map(drop)
}

fn ebpf(request: ByPointer, fd: BorrowedFd<'_>, program: Option<BorrowedFd<'_>>) -> Result<(), Errno> {
    program.map_or(Ok(()), |program| value(request, fd, program.as_raw_fd()))
}

pub fn set_persist(fd: BorrowedFd<'_>, persist: bool) -> Result<(), Errno> {
    number(raw::tunsetpersist, fd, persist.into())
}

pub fn set_offloads(fd: BorrowedFd<'_>, offloads: u32) -> Result<(), Errno> {
    number(raw::tunsetoffload, fd, offloads)
}

pub fn set_owner(fd: BorrowedFd<'_>, uid: u32) -> Result<(), Errno> {
    number(raw::tunsetowner, fd, uid)
}

pub fn set_group(fd: BorrowedFd<'_>, gid: u32) -> Result<(), Errno> {
    number(raw::tunsetgroup, fd, gid)
}

/// SIOCSIFHWADDR on the queue itself, Ethernet.
pub fn mac(fd: BorrowedFd<'_>, mac: [u8; 6]) -> Result<(), Errno> {
    // SAFETY: plain C data, for which all zero bytes are a value
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    let mut data = [0; 14];
    for (target, byte) in data.iter_mut().zip(mac) {
        *target = byte as libc::c_char;
    }
    request.ifr_ifru.ifru_hwaddr = libc::sockaddr { sa_family: libc::ARPHRD_ETHER, sa_data: data };
    // SAFETY: SIOCSIFHWADDR reads one ifreq
    unsafe { raw::siocsifhwaddr(fd.as_raw_fd(), &raw const request) }.map(drop)
}

/// An eBPF program that drops every frame, made by this process; None where it may not.
pub fn drop_program() -> Option<OwnedFd> {
    const BPF_PROG_LOAD: libc::c_int = 5;
    // r0 = 0; exit
    let code: [u64; 2] = [0x0000_0000_0000_00b7, 0x0000_0000_0000_0095];
    #[repr(C)]
    struct Load {
        prog_type: u32,
        insn_cnt: u32,
        insns: u64,
        license: u64,
        rest: [u64; 12],
    }
    let load = Load { prog_type: 1, insn_cnt: 2, insns: code.as_ptr() as u64, license: c"GPL".as_ptr() as u64, rest: [0; 12] };
    // SAFETY: bpf() reads the struct, the program and the licence, which all live until the call is over
    let fd = unsafe { libc::syscall(libc::SYS_bpf, BPF_PROG_LOAD, &raw const load, size_of::<Load>()) };
    if fd < 0 {
        eprintln!("no eBPF programs here: {}", std::io::Error::last_os_error());
        return None;
    }
    // SAFETY: the kernel has just made it for us
    Some(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// Skips the test where there is no second user to be.
pub fn need_users() {
    if fs::read_to_string("/proc/self/uid_map").unwrap().split_whitespace().nth(2) == Some("1") {
        skip("the user namespace has one user only");
    }
}

/// Gives up everything, for good.
pub fn drop_all() {
    drop_to(NOBODY);
    // SAFETY: a system call without pointers
    assert_eq!(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) }, 0);
}

pub fn drop_to(uid: u32) {
    nix::unistd::setgroups(&[]).unwrap();
    nix::unistd::setresgid(uid.into(), uid.into(), uid.into()).unwrap();
    nix::unistd::setresuid(uid.into(), uid.into(), uid.into()).unwrap();
    // SAFETY: a system call without pointers; changing the user has made the process's own /proc files root's
    assert_eq!(unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 1, 0, 0, 0) }, 0);
    let status = fs::read_to_string("/proc/self/status").unwrap();
    for line in ["CapPrm:\t0000000000000000", "CapEff:\t0000000000000000"] {
        assert!(status.contains(line), "{status}");
    }
}

/// Runs `body` as a hostile hypervisor and waits until it has ended. Everything that this process has open, it has, too.
pub fn hostile(body: impl FnOnce()) {
    Forked::run(|| {
        drop_all();
        body();
    })
    .join();
}
