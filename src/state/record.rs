//! Records on disk: one JSON file per tap in the manager's directory.
//!
//! A record is never half there: it is written to a temporary file, synced, given its name, and the directory is synced.
//! Nobody overwrites or removes a record that is not the one he has read.

use super::dirlock::DirLock;
use super::snapshot::Snapshot;
use crate::error::{Context, Error, Result};
use crate::json::{Json, Parsed, Value, json_object};
use crate::kernel::netlink::Netlink;
use crate::kernel::sys::{io_errno, uninterrupted};
use crate::kernel::{IfName, netns};
use nix::errno::Errno;
use nix::fcntl::{OFlag, open, openat, renameat};
use nix::sys::stat::{Mode, fstat};
use nix::unistd::{UnlinkatFlags, fsync, mkdir, unlinkat};
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

/// Records of another version are not touched. New attributes need no new version: they are kept unread.
const VERSION: u32 = 1;
/// A record has about 1 KiB; something much larger is none.
const MAX_SIZE: u64 = 1024 * 1024;
const SUFFIX: &str = ".json";
const DIRECTORY: OFlag = OFlag::O_RDONLY.union(OFlag::O_DIRECTORY).union(OFlag::O_CLOEXEC);
/// With a dot before the name, so that it is none of a record.
const TEMPORARY: &str = ".tmp";

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Record {
    version: u32,
    pub boot_id: String,
    pub netns_cookie: Option<u64>,
    /// What the device was like; None: there was none.
    pub before: Option<Snapshot>,
    /// Which device the hypervisor got, if there was none before.
    pub created: Option<Created>,
    /// What an attempt to restore found changed that could not be finished: [`Fields`](super::Fields).
    pub found: u32,
}

/// A device that did not exist before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Created {
    pub ifindex: i32,
    pub inode: Option<u64>,
    pub persist: bool,
}

json_object!(Record { version, boot_id, netns_cookie, before, created, found or_default });
json_object!(Created { ifindex, inode, persist });

impl Record {
    /// A record of here and now.
    pub(crate) fn new(netlink: &Netlink, before: Option<Snapshot>) -> Result<Self> {
        let failed = || "Unable to tell which boot and network namespace this is".to_owned();
        Ok(Self {
            version: VERSION,
            boot_id: netns::boot_id().context(failed)?.to_owned(),
            netns_cookie: netns::cookie(netlink).context(failed)?,
            before,
            created: None,
            found: 0,
        })
    }

    /// The record in the text of a file, and all that stands there, known or not. Else says why it is none.
    pub(crate) fn parse(text: &str) -> Parsed<(Self, Value)> {
        let raw = Value::parse(text)?;
        let version = raw.as_object().ok().and_then(|record| record.get("version"));
        if let Some(version) = version.filter(|version| **version != VERSION.to_json()) {
            return Err(format!("it has version {version}, which this library (version {VERSION}) does not know"));
        }
        let record = Self::from_json(&raw)?;
        Ok((record, raw))
    }

    /// Interface indexes mean something in the same boot and network namespace only.
    pub(crate) fn is_of_this_boot(&self) -> Result<bool> {
        let boot_id = netns::boot_id().context(|| "Unable to tell which boot this is".into())?;
        Ok(self.boot_id == boot_id)
    }

    pub(crate) fn is_of_this_netns(&self, netlink: &Netlink) -> Result<bool> {
        let here = netns::cookie(netlink).context(|| "Unable to tell which network namespace this is".into())?;
        Ok(match (self.netns_cookie, here) {
            (Some(recorded), Some(here)) => recorded == here,
            _ => true, // a kernel without cookies
        })
    }
}

/// A record as it was found, to be replaced or removed only while it is still the same file.
#[derive(Debug)]
pub(crate) struct Stored {
    pub record: Record,
    /// All that stood there, known or not.
    raw: Value,
    file: FileId,
}

type FileId = (u64, u64);

/// The manager's directory.
#[derive(Debug)]
pub(crate) struct StateDir {
    path: PathBuf,
    dir: OwnedFd,
}

impl StateDir {
    /// Opens the directory; None if there is none.
    pub(crate) fn open(path: &Path) -> Result<Option<Self>> {
        let failed = || format!("Unable to open state directory {}", path.display());
        if path.as_os_str().is_empty() {
            return Err(Error::argument("the state directory is empty"));
        }
        match uninterrupted(|| open(path, DIRECTORY, Mode::empty())) {
            Ok(dir) => Ok(Some(Self { path: path.to_owned(), dir })),
            Err(Errno::ENOENT) => Ok(None),
            Err(errno) => Err(Error::system(errno, failed())),
        }
    }

    /// Opens the directory, making it, for the owner alone, if it is missing.
    pub(crate) fn open_or_make(path: &Path) -> Result<Self> {
        if let Some(dir) = Self::open(path)? {
            return Ok(dir);
        }
        let failed = || format!("Unable to create state directory {}", path.display());
        make_dir(path).context(failed)?;
        Self::open(path)?.ok_or_else(|| Error::system(Errno::ENOENT, failed()))
    }

    /// Which directory it is, however it is spelt.
    pub(crate) fn id(&self) -> Result<FileId> {
        file_id(self.dir.as_fd()).context(|| format!("Unable to read state directory {}", self.path.display()))
    }

    /// Reads the record of a tap.
    pub(crate) fn load(&self, name: &IfName) -> Result<Option<Stored>> {
        let failed = || format!("Unable to read the state record {}", self.shown(name));
        let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
        let fd = match uninterrupted(|| openat(&self.dir, file_name(name).as_str(), flags, Mode::empty())) {
            Ok(fd) => fd,
            Err(Errno::ENOENT) => return Ok(None),
            Err(Errno::ELOOP) => return Err(Error::system(Errno::ELOOP, format!("{}, it is a symbolic link", failed()))),
            Err(errno) => return Err(Error::system(errno, failed())),
        };
        let file = file_id(fd.as_fd()).context(failed)?;
        let mut text = String::with_capacity(4096);
        match File::from(fd).take(MAX_SIZE).read_to_string(&mut text) {
            Ok(len) if u64::try_from(len) == Ok(MAX_SIZE) => return Err(garbage(&failed(), "it is too large")),
            Err(e) if e.kind() == std::io::ErrorKind::InvalidData => return Err(garbage(&failed(), "it is not text")),
            result => result.map_err(io_errno).context(failed)?,
        };
        let (record, raw) = Record::parse(&text).map_err(|why| garbage(&failed(), &why))?;
        Ok(Some(Stored { record, raw, file }))
    }

    /// Writes the first record of a tap. EEXIST: somebody else just did.
    pub(crate) fn add(&self, name: &IfName, record: &Record) -> Result<()> {
        let _lock = self.lock()?;
        if self.present(name)?.is_some() {
            return Err(Error::system(Errno::EEXIST, format!("Unable to write the state record {}", self.shown(name))));
        }
        self.write(name, &record.to_json())?;
        self.sync(name).inspect_err(|_| self.remove_file(&file_name(name)))
    }

    /// Replaces a record that has been read before. What a newer version of the library wrote into it stays. On failure
    /// the former one is there.
    pub(crate) fn replace(&self, name: &IfName, stored: &mut Stored, record: Record) -> Result<()> {
        let _lock = self.lock()?;
        if self.present(name)? != Some(stored.file) {
            return Err(self.replaced(name));
        }
        let mut raw = record.to_json();
        raw.add_missing(&stored.raw);
        let file = self.write(name, &raw)?;
        let former = std::mem::replace(stored, Stored { record, raw, file });
        self.sync(name).inspect_err(|_| {
            if let Ok(file) = self.write(name, &former.raw) {
                *stored = Stored { file, ..former };
            }
        })
    }

    /// Removes a record that has been read before; no error if somebody else did.
    pub(crate) fn remove(&self, name: &IfName, old: &Stored) -> Result<()> {
        let _lock = self.lock()?;
        match self.present(name)? {
            Some(present) if present == old.file => self.unlink(name),
            Some(_) => Err(self.replaced(name)),
            None => Ok(()),
        }
    }

    /// Removes whatever stands under the name of a tap's record, readable or not.
    pub(crate) fn discard(&self, name: &IfName) -> Result<()> {
        let _lock = self.lock()?;
        self.unlink(name)
    }

    /// The names of all taps that have a record, sorted. Clears away what a process left that died while writing.
    pub(crate) fn names(&self) -> Result<Vec<IfName>> {
        let failed = || format!("Unable to read state directory {}", self.path.display());
        let mut names = Vec::new();
        let mut unfinished = Vec::new();
        for entry in uninterrupted(|| std::fs::read_dir(&self.path).map_err(io_errno)).context(failed)? {
            let file_name = entry.map_err(io_errno).context(failed)?.file_name();
            let Some(file_name) = file_name.to_str() else { continue };
            if file_name.starts_with('.') && file_name.ends_with(TEMPORARY) {
                unfinished.push(file_name.to_owned());
            } else if let Some(name) = file_name.strip_suffix(SUFFIX) {
                names.extend(IfName::new(name.as_bytes()));
            }
        }
        if !unfinished.is_empty()
            && let Ok(_lock) = self.lock()
        {
            for file_name in &unfinished {
                self.remove_file(file_name); // nobody is writing now
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    /// While this lives, no other process or thread adds, replaces or removes a record here.
    fn lock(&self) -> Result<DirLock> {
        DirLock::take(|| openat(&self.dir, ".", DIRECTORY, Mode::empty()))
            .context(|| format!("Unable to lock state directory {}", self.path.display()))
    }

    /// Which file stands under the name of a tap's record.
    pub(crate) fn present(&self, name: &IfName) -> Result<Option<FileId>> {
        let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let file = uninterrupted(|| openat(&self.dir, file_name(name).as_str(), flags, Mode::empty()));
        match file.and_then(|fd| file_id(fd.as_fd())) {
            Ok(id) => Ok(Some(id)),
            Err(Errno::ENOENT) => Ok(None),
            Err(errno) => Err(Error::system(errno, format!("Unable to read the state record {}", self.shown(name)))),
        }
    }

    /// The name lasts only after [`sync`](Self::sync).
    fn write(&self, name: &IfName, record: &Value) -> Result<FileId> {
        let failed = || format!("Unable to write the state record {}", self.shown(name));
        let text = format!("{record}\n");
        let temporary = format!(".{name}{TEMPORARY}");
        let write = || {
            let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_TRUNC | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
            let open = || openat(&self.dir, temporary.as_str(), flags, Mode::S_IRUSR | Mode::S_IWUSR);
            let mut file = uninterrupted(open).map(File::from)?;
            file.write_all(text.as_bytes()).map_err(io_errno)?;
            file.sync_all().map_err(io_errno)?;
            let id = file_id(file.as_fd())?;
            match renameat(&self.dir, temporary.as_str(), &self.dir, file_name(name).as_str()) {
                // a file server may have done it all the same
                Err(errno) if self.present(name) != Ok(Some(id)) => Err(errno),
                _ => Ok(id),
            }
        };
        write().inspect_err(|_| self.remove_file(&temporary)).context(failed)
    }

    fn sync(&self, name: &IfName) -> Result<()> {
        fsync(&self.dir).context(|| format!("Unable to write the state record {}", self.shown(name)))
    }

    fn unlink(&self, name: &IfName) -> Result<()> {
        let failed = || format!("Unable to remove the state record {}", self.shown(name));
        self.remove_file(&format!(".{name}{TEMPORARY}"));
        // not synced: a record that comes back after a crash of the machine is of an earlier boot
        match unlinkat(&self.dir, file_name(name).as_str(), UnlinkatFlags::NoRemoveDir) {
            Ok(()) | Err(Errno::ENOENT) => Ok(()),
            Err(_) if self.present(name) == Ok(None) => Ok(()), // done all the same
            Err(errno) => Err(Error::system(errno, failed())),
        }
    }

    fn remove_file(&self, file_name: &str) {
        let _ = unlinkat(&self.dir, file_name, UnlinkatFlags::NoRemoveDir); // what is not there is fine, too
    }

    fn replaced(&self, name: &IfName) -> Error {
        Error::system(Errno::ESTALE, format!("The state record {} was replaced meanwhile", self.shown(name)))
    }

    fn shown(&self, name: &IfName) -> String {
        self.path.join(file_name(name)).display().to_string()
    }
}

/// Makes a directory for its owner alone, and those that it is to be in.
fn make_dir(path: &Path) -> std::result::Result<(), Errno> {
    let make = || match mkdir(path, Mode::S_IRWXU) {
        Err(Errno::EEXIST) => Ok(()), // what it is, opening it tells
        result => result,
    };
    match (make(), path.parent()) {
        (Err(Errno::ENOENT), Some(parent)) if !parent.as_os_str().is_empty() => {
            make_dir(parent)?;
            make()
        }
        (result, _) => result,
    }
}

fn file_name(name: &IfName) -> String {
    format!("{name}{SUFFIX}")
}

fn file_id(fd: std::os::fd::BorrowedFd<'_>) -> std::result::Result<FileId, Errno> {
    fstat(fd).map(|stat| (stat.st_dev, stat.st_ino))
}

fn garbage(failed: &str, why: &str) -> Error {
    Error::system(Errno::EBADMSG, format!("{failed}, {why}"))
}
