//! Which number does a signal's name stand for? signal(7), as x86 and ARM number them.

use anyhow::{Context, Result};

/// The lowest and highest real-time signals as glibc counts them: it keeps 32 and 33 for itself.
const RTMIN: i32 = 34;
const RTMAX: i32 = 64;

const NAMES: &[(&str, i32)] = &[
    ("HUP", libc::SIGHUP),
    ("INT", libc::SIGINT),
    ("QUIT", libc::SIGQUIT),
    ("ILL", libc::SIGILL),
    ("TRAP", libc::SIGTRAP),
    ("ABRT", libc::SIGABRT),
    ("IOT", libc::SIGIOT),
    ("BUS", libc::SIGBUS),
    ("FPE", libc::SIGFPE),
    ("KILL", libc::SIGKILL),
    ("USR1", libc::SIGUSR1),
    ("SEGV", libc::SIGSEGV),
    ("USR2", libc::SIGUSR2),
    ("PIPE", libc::SIGPIPE),
    ("ALRM", libc::SIGALRM),
    ("TERM", libc::SIGTERM),
    ("STKFLT", libc::SIGSTKFLT),
    ("CHLD", libc::SIGCHLD),
    ("CLD", libc::SIGCHLD),
    ("CONT", libc::SIGCONT),
    ("STOP", libc::SIGSTOP),
    ("TSTP", libc::SIGTSTP),
    ("TTIN", libc::SIGTTIN),
    ("TTOU", libc::SIGTTOU),
    ("URG", libc::SIGURG),
    ("XCPU", libc::SIGXCPU),
    ("XFSZ", libc::SIGXFSZ),
    ("VTALRM", libc::SIGVTALRM),
    ("PROF", libc::SIGPROF),
    ("WINCH", libc::SIGWINCH),
    ("IO", libc::SIGIO),
    ("POLL", libc::SIGPOLL),
    ("PWR", libc::SIGPWR),
    ("SYS", libc::SIGSYS),
];

/// The number of `KILL`, `sigkill`, `9`, `RTMIN+3`; 0 is the question whether the process is there.
/// Nothing at all means SIGTERM, as in runc.
pub fn number(text: &str) -> Result<i32> {
    if text.is_empty() {
        return Ok(libc::SIGTERM);
    }
    by_number(text)
        .or_else(|| by_name(text))
        .with_context(|| format!("unknown signal {text:?}"))
}

fn by_number(text: &str) -> Option<i32> {
    text.parse().ok().filter(|n| (0..=RTMAX).contains(n))
}

fn by_name(text: &str) -> Option<i32> {
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    if let Some((_, number)) = NAMES.iter().find(|(known, _)| *known == name) {
        return Some(*number);
    }
    let real_time = |base: i32, offset: &str| {
        let offset: i32 = if offset.is_empty() {
            0
        } else {
            offset.parse().ok()?
        };
        Some(base + offset).filter(|n| (RTMIN..=RTMAX).contains(n))
    };
    match (name.strip_prefix("RTMIN"), name.strip_prefix("RTMAX")) {
        (Some(plus), _) if plus.is_empty() || plus.starts_with('+') => real_time(RTMIN, plus),
        (_, Some(minus)) if minus.is_empty() || minus.starts_with('-') => real_time(RTMAX, minus),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_are_understood() {
        for (text, expected) in [
            ("", 15),
            ("TERM", 15),
            ("SIGTERM", 15),
            ("sigterm", 15),
            ("Kill", 9),
            ("9", 9),
            ("0", 0),
            ("34", 34),
            ("64", 64),
            ("IOT", 6),
            ("CLD", 17),
            ("POLL", 29),
            ("RTMIN", 34),
            ("SIGRTMIN+3", 37),
            ("rtmax-1", 63),
            ("SIGRTMAX", 64),
        ] {
            assert_eq!(number(text).unwrap(), expected, "{text}");
        }
    }

    #[test]
    fn what_is_no_signal_is_refused_by_name() {
        for text in [
            "FOO",
            "SIG",
            "SIGSIGKILL",
            "-1",
            "-9",
            "65",
            "70",
            "RTMIN-1",
            "RTMIN+31",
            "RTMAX+1",
            "9x",
            "99999999999",
        ] {
            assert_eq!(
                number(text).unwrap_err().to_string(),
                format!("unknown signal \"{text}\"")
            );
        }
    }
}
