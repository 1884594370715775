//! Why a command could not do what was asked: a code with a page in the manual, the cause, and what to do next.

use serde_json::{Value, json};

use crate::escape;

/// The command succeeded.
pub const EXIT_OK: u8 = 0;
/// The run failed.
pub const EXIT_FAILED: u8 = 1;
/// The arguments or the plan are wrong.
pub const EXIT_USAGE: u8 = 2;
/// What was asked is refused in this state of things.
pub const EXIT_REFUSED: u8 = 3;
/// The run waits, or is left to be resumed.
pub const EXIT_LEFT: u8 = 4;
/// The run was canceled.
pub const EXIT_CANCELED: u8 = 130;

/// Why a command could not do what was asked.
#[derive(Clone, PartialEq, Debug)]
pub struct Failure {
    /// A stable name with a page in `docs/errors`.
    pub code: &'static str,
    /// The exit code of the process.
    pub exit: u8,
    /// What happened, and to what.
    pub message: String,
    /// What that comes from, nearest first.
    pub causes: Vec<String>,
    /// What to do next.
    pub hint: Option<String>,
    /// What is wrong with a plan, where that is the reason: JSON forms and the text for people.
    pub problems: Option<Box<(Vec<Value>, String)>>,
}

impl Failure {
    /// A failure with a code and a message.
    pub fn new(code: &'static str, exit: u8, message: impl Into<String>) -> Self {
        Self { code, exit, message: message.into(), causes: Vec::new(), hint: None, problems: None }
    }

    /// What to do next.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// What it comes from: an error and everything below it.
    pub fn because(mut self, error: &dyn std::error::Error) -> Self {
        let mut next = Some(error);
        while let Some(error) = next {
            self.causes.push(error.to_string());
            next = error.source();
        }
        self
    }

    /// For programs: one JSON object.
    pub fn to_json(&self) -> Value {
        let mut error = json!({
            "code": self.code,
            "message": self.message,
            "hint": self.hint,
            "causes": self.causes,
            "exit_code": self.exit,
        });
        if let (Some(problems), Some(map)) = (&self.problems, error.as_object_mut()) {
            map.insert("problems".to_owned(), problems.0.clone().into());
        }
        json!({ "error": error })
    }

    /// For people.
    pub fn to_text(&self, color: bool) -> String {
        let paint = |code: &str, text: &str| if color { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() };
        let mut out = String::new();
        if let Some(problems) = &self.problems {
            out += &problems.1;
        }
        let message = escape::harmless(self.message.as_bytes());
        out += &format!("{}: {message}\n", paint("1;31", &format!("error[{}]", self.code)));
        for cause in &self.causes {
            out += &format!("  {}: {}\n", paint("1", "because"), escape::harmless(cause.as_bytes()));
        }
        if let Some(hint) = &self.hint {
            out += &format!("  {}: {}\n", paint("1;36", "help"), escape::harmless(hint.as_bytes()));
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_read_what_why_and_what_next() {
        let failure = Failure::new("plan-unreadable", EXIT_USAGE, "cannot read the plan `deploy.yaml`")
            .because(&std::io::Error::other("disk on fire\x1b[2J"))
            .hint("is the name right?");
        assert_eq!(
            failure.to_text(false),
            "error[plan-unreadable]: cannot read the plan `deploy.yaml`\n  because: disk on fire\\x1b[2J\n  \
             help: is the name right?\n"
        );
    }

    #[test]
    fn programs_read_one_object() {
        let json = Failure::new("no-such-run", EXIT_REFUSED, "there is no run 7").to_json();
        assert_eq!(
            json.to_string(),
            r#"{"error":{"causes":[],"code":"no-such-run","exit_code":3,"hint":null,"message":"there is no run 7"}}"#
        );
    }
}
