//! Failures that end the process, and the exit codes the outside relies on.

use std::{error::Error, fmt, process::ExitCode};

use crate::base::text::one_line;

/// How the process ends, as its exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// All went well.
    Fine = 0,
    /// Something failed at run time.
    Runtime = 1,
    /// The command line is wrong.
    Usage = 2,
    /// The kernel, driver or interface cannot, or is taken.
    Unavailable = 69,
    /// The caller lacks a privilege.
    NotPermitted = 77,
    /// The configuration is wrong, or listeners forbid the start.
    BadConfiguration = 78,
}

impl Exit {
    /// The one with this code, as another process of ours tells it.
    pub fn from_code(code: u8) -> Self {
        const ALL: [Exit; 6] = [
            Exit::Fine,
            Exit::Runtime,
            Exit::Usage,
            Exit::Unavailable,
            Exit::NotPermitted,
            Exit::BadConfiguration,
        ];

        ALL.into_iter()
            .find(|exit| *exit as u8 == code)
            .unwrap_or(Self::Runtime)
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// A failure with the exit code it ends in.
///
/// Displays as one line, `thing: cause; remedy`, whatever its causes print.
/// It keeps its code when it travels through [`anyhow::Error`], under any added context.
pub struct Failure {
    /// The exit code the process ends in.
    pub code: Exit,
    chain: anyhow::Error,
    remedy: Option<String>,
}

impl Failure {
    /// Creates a failure from a message, or from an error whose causes are shown too.
    pub fn new(code: Exit, error: impl Into<anyhow::Error>) -> Self {
        Self {
            code,
            chain: error.into(),
            remedy: None,
        }
    }

    /// A failure at run time: exit code 1.
    pub fn runtime(message: impl Into<String>) -> Self {
        Self::new(Exit::Runtime, anyhow::Error::msg(message.into()))
    }

    /// A wrong command line: exit code 2.
    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(Exit::Usage, anyhow::Error::msg(message.into()))
    }

    /// A kernel, driver or interface that cannot, or is taken: exit code 69.
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::new(Exit::Unavailable, anyhow::Error::msg(message.into()))
    }

    /// A missing privilege: exit code 77.
    pub fn not_permitted(message: impl Into<String>) -> Self {
        Self::new(Exit::NotPermitted, anyhow::Error::msg(message.into()))
    }

    /// A wrong configuration or refused listeners: exit code 78.
    pub fn bad_configuration(message: impl Into<String>) -> Self {
        Self::new(Exit::BadConfiguration, anyhow::Error::msg(message.into()))
    }

    /// Adds what the administrator can do about it.
    #[must_use]
    pub fn remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = Some(remedy.into());
        self
    }

    /// Says in front of it what failed because of it.
    #[must_use]
    pub fn within(mut self, context: &'static str) -> Self {
        self.chain = self.chain.context(context);
        self
    }

    /// What failed and why, in one line, without the remedy.
    pub fn message(&self) -> String {
        let text = format!("{:#}", self.chain);
        let lines: Vec<_> = text
            .lines()
            .map(str::trim)
            .filter(|line| !line.is_empty())
            .collect();

        if lines.is_empty() {
            "unknown failure".to_owned()
        } else {
            one_line(&lines.join(" "))
        }
    }

    /// The whole line, for the end of one that names already what it is about.
    pub fn about(&self, name: &str) -> String {
        let line = self.to_string();
        let rest = line
            .strip_prefix(name)
            .and_then(|rest| rest.strip_prefix(": "));

        rest.unwrap_or(&line).to_owned()
    }

    /// What the administrator can do about it, where that is known.
    pub fn advice(&self) -> Option<&str> {
        self.remedy.as_deref()
    }
}

impl From<anyhow::Error> for Failure {
    /// Keeps the code of a [`Failure`] anywhere in the chain, else takes [`Exit::Runtime`].
    fn from(error: anyhow::Error) -> Self {
        let outermost = error.chain().next().is_some_and(|cause| cause.is::<Self>());
        let code = error
            .chain()
            .find_map(|cause| cause.downcast_ref::<Self>())
            .map_or(Exit::Runtime, |failure| failure.code);

        // A failure below context cannot be taken out without losing the context.
        if !outermost {
            return Self::new(code, error);
        }
        error
            .downcast()
            .unwrap_or_else(|error| Self::new(code, error))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message())?;
        if let Some(remedy) = &self.remedy {
            write!(f, "; {}", one_line(remedy))?;
        }

        Ok(())
    }
}

impl fmt::Debug for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self} (exit code {})", self.code as u8)
    }
}

// The causes are part of the text, so a source would print them twice.
impl Error for Failure {}

/// Gives an error the exit code it ends in.
pub trait ExitWith<T> {
    /// Turns the error into a [`Failure`] that ends in `code`.
    fn exit_with(self, code: Exit) -> Result<T, Failure>;
}

impl<T, E: Into<anyhow::Error>> ExitWith<T> for Result<T, E> {
    fn exit_with(self, code: Exit) -> Result<T, Failure> {
        self.map_err(|error| Failure::new(code, error))
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use anyhow::{Context, anyhow};

    use super::*;

    #[test]
    fn a_name_is_said_once() {
        let taken = Failure::unavailable("eth0: in use").remedy("detach it first");
        assert_eq!(taken.about("eth0"), "in use; detach it first");
        assert_eq!(taken.about("eth"), "eth0: in use; detach it first");
        assert_eq!(taken.about(""), "eth0: in use; detach it first");
    }

    #[test]
    fn a_failure_is_one_line_with_its_code() {
        let missing = || io::Error::from_raw_os_error(2);
        let taken = || Failure::unavailable("eth0: in use").remedy("detach it first");
        // name                    failure                                            code  line
        let table: [(&str, Failure, u8, &str); 6] = [
            (
                "message",
                Failure::usage("--iface: missing"),
                2,
                "--iface: missing",
            ),
            ("remedy", taken(), 69, "eth0: in use; detach it first"),
            (
                "causes",
                anyhow::Error::from(missing()).context("open f").into(),
                1,
                "open f: No such file or directory (os error 2)",
            ),
            ("many lines", anyhow!("a:\n  b\n\nc").into(), 1, "a: b c"),
            (
                "through anyhow",
                anyhow::Error::from(taken()).into(),
                69,
                "eth0: in use; detach it first",
            ),
            (
                "under context",
                Err::<(), _>(taken())
                    .context("attach")
                    .context("start")
                    .map_err(Failure::from)
                    .expect_err("fails"),
                69,
                "start: attach: eth0: in use; detach it first",
            ),
        ];
        for (name, failure, code, line) in table {
            assert_eq!(failure.code as u8, code, "{name}");
            assert_eq!(failure.to_string(), line, "{name}");
        }
    }
}
