//! What is wrong, and where.

use std::error::Error;
use std::fmt;
use std::path::{Path, PathBuf};

/// Something in a tenant's file that cannot be accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The file.
    pub file: PathBuf,
    /// The field's path in it, `.` for the whole.
    pub field: String,
    /// Why it cannot be accepted. Never a key.
    pub reason: String,
}

impl Problem {
    pub(super) fn new(file: &Path, field: impl Into<String>, reason: impl Into<String>) -> Self {
        Self { file: file.to_owned(), field: field.into(), reason: reason.into() }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, field, reason } = self;
        write!(f, "{}: {field}: {reason}", file.display())
    }
}

/// Everything that is wrong, one a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problems(pub Vec<Problem>);

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, problem) in self.0.iter().enumerate() {
            if n > 0 {
                f.write_str("\n")?;
            }
            problem.fmt(f)?;
        }
        Ok(())
    }
}

impl Error for Problems {}
