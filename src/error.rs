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
pub struct Error(Box<Failure>); // small, since each function has one to hand on

#[derive(Debug, Clone, PartialEq, Eq)]
struct Failure {
    code: Code,
    errno: Errno,
    text: String,
}

/// Result of this library.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    #[cold]
    #[inline(never)]
    fn new(code: Code, errno: Errno, text: String) -> Self {
        Self(Box::new(Failure { code, errno, text }))
    }

    /// A system call failed; `text` says what was being done, and to which device.
    pub(crate) fn system(errno: Errno, text: impl Into<String>) -> Self {
        Self::new(Code::System, errno, text.into())
    }

    /// The caller gave something that cannot be meant.
    pub(crate) fn argument(text: impl Into<String>) -> Self {
        Self::new(Code::InvalidArgument, Errno::EINVAL, text.into())
    }

    /// The state of the machine does not allow it.
    pub(crate) fn operation(errno: Errno, text: impl Into<String>) -> Self {
        Self::new(Code::OperationInvalid, errno, text.into())
    }

    /// A configuration that this library cannot bring about.
    pub(crate) fn unsupported(text: impl Into<String>) -> Self {
        Self::new(Code::ConfigUnsupported, Errno::EOPNOTSUPP, text.into())
    }

    pub(crate) fn internal(errno: Errno, text: impl Into<String>) -> Self {
        Self::new(Code::Internal, errno, text.into())
    }

    /// libvirt's number.
    #[must_use]
    pub fn code(&self) -> Code {
        self.0.code
    }

    /// The errno, also where no system call failed: EINVAL for a bad argument, EEXIST for a taken name, and so on.
    #[must_use]
    pub fn errno(&self) -> Errno {
        self.0.errno
    }

    /// The text without the code's prefix and the errno's name, as libvirt's reporters want it.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.0.text
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = &self.0.text;
        match self.0.code {
            Code::Internal => write!(f, "internal error: {text}"),
            Code::InvalidArgument => write!(f, "invalid argument: {text}"),
            Code::System => write!(f, "{text}: {}", strerror(self.0.errno)),
            Code::OperationInvalid => write!(f, "Requested operation is not valid: {text}"),
            Code::ConfigUnsupported => write!(f, "unsupported configuration: {text}"),
        }
    }
}

impl std::error::Error for Error {}

/// Turns the kernel's answer into an error that says what was being done.
pub(crate) trait Context<T> {
    fn context(self, text: impl Fn() -> String) -> Result<T>;
}

impl<T, E: Into<Errno>> Context<T> for std::result::Result<T, E> {
    fn context(self, text: impl Fn() -> String) -> Result<T> {
        self.map_err(|e| refused(e.into(), &text))
    }
}

/// One piece of code for all failures: what a function says of them would else stand at each of its calls.
#[cold]
#[inline(never)]
fn refused(errno: Errno, text: &dyn Fn() -> String) -> Error {
    Error::system(errno, text())
}
