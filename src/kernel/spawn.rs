//! Starting another program: posix_spawn(3), which unlike fork(2) copies nothing of what may be a large process and runs
//! none of its handlers.

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::unistd::pipe2;
use std::ffi::{CStr, CString};
use std::fs::File;
use std::mem::{MaybeUninit, transmute};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::ptr::null_mut;

unsafe extern "C" {
    static environ: *const *mut libc::c_char;
}

/// A program that runs, until [`Child::wait`]: who drops it leaves a zombie.
#[derive(Debug)]
pub(super) struct Child {
    pub pid: i32,
    pub stdout: File,
    pub stderr: File,
}

/// Starts what PATH has under the name that `args` begins with. It reads nothing, gets no other file than its three, has
/// no signal blocked, and is a process group of its own.
pub(super) fn spawn(args: &[CString]) -> Result<Child, Errno> {
    let program = args.first().ok_or(Errno::EINVAL)?;
    let ((stdout, child_stdout), (stderr, child_stderr)) = (pipe()?, pipe()?);
    let mut files = FileActions::new()?;
    files.add_open(0, c"/dev/null")?;
    files.add_dup2(&child_stdout, 1)?;
    files.add_dup2(&child_stderr, 2)?;
    files.add_close_from(3)?;
    let attributes = Attributes::of_own_group()?;
    let mut words: Vec<_> = args.iter().map(|arg| arg.as_ptr().cast_mut()).collect();
    words.push(null_mut());
    let mut pid = 0;
    // SAFETY: the C library's own; a caller who changes the environment while others use it is wrong in C, too
    let environment = unsafe { environ };
    // SAFETY: all strings and both arrays end as they must, and outlive the call, which only reads them
    done(unsafe {
        libc::posix_spawnp(
            &raw mut pid,
            program.as_ptr(),
            &raw const files.0,
            &raw const attributes.0,
            words.as_ptr(),
            environment.cast(),
        )
    })?;
    Ok(Child { pid, stdout, stderr })
}

impl Child {
    /// Kills it, and all of its group. It must not have been waited for: until then nobody else has its number.
    pub(super) fn kill_group(&self) {
        // SAFETY: by value
        unsafe { libc::kill(self.pid.saturating_neg(), libc::SIGKILL) };
    }

    pub(super) fn wait(self) -> Result<ExitStatus, Errno> {
        let mut status = 0;
        loop {
            // SAFETY: writes the one number
            match Errno::result(unsafe { libc::waitpid(self.pid, &raw mut status, 0) }) {
                Err(Errno::EINTR) => {}
                result => return result.map(|_| ExitStatus::from_raw(status)),
            }
        }
    }
}

/// What is read here never blocks, and what is written there is not one of the numbers that the child's files get.
fn pipe() -> Result<(File, OwnedFd), Errno> {
    let (reader, mut writer) = pipe2(OFlag::O_CLOEXEC)?;
    fcntl(&reader, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    if writer.as_raw_fd() < 3 {
        let fd = fcntl(&writer, FcntlArg::F_DUPFD_CLOEXEC(3))?;
        // SAFETY: the kernel has just made it
        writer = unsafe { OwnedFd::from_raw_fd(fd) };
    }
    Ok((reader.into(), writer))
}

struct FileActions(libc::posix_spawn_file_actions_t);

impl FileActions {
    fn new() -> Result<Self, Errno> {
        let mut actions = MaybeUninit::uninit();
        // SAFETY: writes all of it
        done(unsafe { libc::posix_spawn_file_actions_init(actions.as_mut_ptr()) })?;
        // SAFETY: written by the call above
        Ok(Self(unsafe { actions.assume_init() }))
    }

    fn add_open(&mut self, fd: i32, path: &CStr) -> Result<(), Errno> {
        // SAFETY: the path is copied
        done(unsafe { libc::posix_spawn_file_actions_addopen(&raw mut self.0, fd, path.as_ptr(), libc::O_RDONLY, 0) })
    }

    fn add_dup2(&mut self, file: &OwnedFd, fd: i32) -> Result<(), Errno> {
        // SAFETY: two numbers
        done(unsafe { libc::posix_spawn_file_actions_adddup2(&raw mut self.0, file.as_raw_fd(), fd) })
    }

    /// Closes what others have opened without O_CLOEXEC. C libraries before glibc 2.34 cannot; then it is inherited.
    fn add_close_from(&mut self, first: i32) -> Result<(), Errno> {
        type AddCloseFrom = unsafe extern "C" fn(*mut libc::posix_spawn_file_actions_t, libc::c_int) -> libc::c_int;
        // SAFETY: a string
        let found = unsafe { libc::dlsym(libc::RTLD_DEFAULT, c"posix_spawn_file_actions_addclosefrom_np".as_ptr()) };
        // SAFETY: a function of this type in spawn.h, or NULL
        let Some(add_close_from) = (unsafe { transmute::<*mut libc::c_void, Option<AddCloseFrom>>(found) }) else {
            return Ok(());
        };
        // SAFETY: a number
        done(unsafe { add_close_from(&raw mut self.0, first) })
    }
}

impl Drop for FileActions {
    fn drop(&mut self) {
        // SAFETY: initialised by new(), and not used again
        unsafe { libc::posix_spawn_file_actions_destroy(&raw mut self.0) };
    }
}

struct Attributes(libc::posix_spawnattr_t);

impl Attributes {
    /// A process group of its own, no signal blocked, and SIGPIPE, which a daemon may ignore, as by default.
    fn of_own_group() -> Result<Self, Errno> {
        let mut attributes = MaybeUninit::uninit();
        // SAFETY: writes all of it
        done(unsafe { libc::posix_spawnattr_init(attributes.as_mut_ptr()) })?;
        // SAFETY: written by the call above
        let mut attributes = Self(unsafe { attributes.assume_init() });
        let mut signals = MaybeUninit::uninit();
        // SAFETY: writes all of it
        unsafe { libc::sigemptyset(signals.as_mut_ptr()) };
        // SAFETY: copies the set, which was written by the call above
        done(unsafe { libc::posix_spawnattr_setsigmask(&raw mut attributes.0, signals.as_ptr()) })?;
        // SAFETY: the set was written above
        unsafe { libc::sigaddset(signals.as_mut_ptr(), libc::SIGPIPE) };
        // SAFETY: as for the other set
        done(unsafe { libc::posix_spawnattr_setsigdefault(&raw mut attributes.0, signals.as_ptr()) })?;
        // SAFETY: a number: the group is the child's own
        done(unsafe { libc::posix_spawnattr_setpgroup(&raw mut attributes.0, 0) })?;
        let flags = libc::POSIX_SPAWN_SETPGROUP | libc::POSIX_SPAWN_SETSIGMASK | libc::POSIX_SPAWN_SETSIGDEF;
        let flags = libc::c_short::try_from(flags).map_err(|_| Errno::EINVAL)?;
        // SAFETY: a number
        done(unsafe { libc::posix_spawnattr_setflags(&raw mut attributes.0, flags) })?;
        Ok(attributes)
    }
}

impl Drop for Attributes {
    fn drop(&mut self) {
        // SAFETY: initialised by of_own_group(), and not used again
        unsafe { libc::posix_spawnattr_destroy(&raw mut self.0) };
    }
}

/// These functions return the errno.
fn done(errno: libc::c_int) -> Result<(), Errno> {
    if errno == 0 { Ok(()) } else { Err(Errno::from_raw(errno)) }
}
