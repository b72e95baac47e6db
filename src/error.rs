//! What went wrong, in libvirt's terms: a code of `virErrorNumber`, an errno and a text.

use crate::kernel::sys::strerror;
use nix::errno::Errno;
use std::fmt;

/// libvirt's error numbers (libvirt/virterror.h) that this library raises; the values are ABI there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i32)]
pub enum Code {
    Internal = 1,
    InvalidArgument = 8,
    System = 38,
    OperationInvalid = 55,
    ConfigUnsupported = 67,
}

/// An error of this library. Its `Display` is what libvirt would print.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    code: Code,
    errno: Errno,
    text: String,
}

/// Result of this library.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// A system call failed; `text` says what was being done, and to which device.
    pub(crate) fn system(errno: Errno, text: impl Into<String>) -> Self {
        Self { code: Code::System, errno, text: text.into() }
    }

    /// The caller gave something that cannot be meant.
    pub(crate) fn argument(text: impl Into<String>) -> Self {
        Self { code: Code::InvalidArgument, errno: Errno::EINVAL, text: text.into() }
    }

    /// The state of the machine does not allow it.
    pub(crate) fn operation(errno: Errno, text: impl Into<String>) -> Self {
        Self { code: Code::OperationInvalid, errno, text: text.into() }
    }

    /// A configuration that this library cannot bring about.
    pub(crate) fn unsupported(text: impl Into<String>) -> Self {
        Self { code: Code::ConfigUnsupported, errno: Errno::EOPNOTSUPP, text: text.into() }
    }

    pub(crate) fn internal(errno: Errno, text: impl Into<String>) -> Self {
        Self { code: Code::Internal, errno, text: text.into() }
    }

    /// libvirt's number.
    #[must_use]
    pub fn code(&self) -> Code {
        self.code
    }

    /// The errno, also where no system call failed: EINVAL for a bad argument, EEXIST for a taken name, and so on.
    #[must_use]
    pub fn errno(&self) -> Errno {
        self.errno
    }

    /// The text without the code's prefix and the errno's name, as libvirt's reporters want it.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = &self.text;
        match self.code {
            Code::Internal => write!(f, "internal error: {text}"),
            Code::InvalidArgument => write!(f, "invalid argument: {text}"),
            Code::System => write!(f, "{text}: {}", strerror(self.errno)),
            Code::OperationInvalid => write!(f, "Requested operation is not valid: {text}"),
            Code::ConfigUnsupported => write!(f, "unsupported configuration: {text}"),
        }
    }
}

impl std::error::Error for Error {}

/// Turns the kernel's answer into an error that says what was being done.
pub(crate) trait Context<T> {
    fn context(self, text: impl FnOnce() -> String) -> Result<T>;
}

impl<T, E: Into<Errno>> Context<T> for std::result::Result<T, E> {
    fn context(self, text: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|e| Error::system(e.into(), text()))
    }
}
