//! The words CRIU is spoken to in: protocol buffers of `criu_req`, `criu_opts`, `criu_resp` (CRIU's
//! rpc.proto), as far as they are needed. No message of it has an inner list of numbers or a float, so
//! that two kinds of field are all there is (protobuf.dev, "Encoding").

use anyhow::{Context, Result, bail};
use std::os::fd::{AsRawFd, BorrowedFd};

/// What is asked for: `criu_req_type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Dump = 1,
    Restore = 2,
    PreDump = 4,
    Notify = 6,
}

/// What CRIU does about cgroups: `criu_cg_mode`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CgroupMode {
    Ignore = 0,
    Soft = 3,
    Full = 4,
    Strict = 5,
}

/// `criu_network_lock_method`: nftables, without a program to be run.
pub const NFTABLES: u64 = 2;

/// Fields of `criu_opts`, by their numbers.
pub mod field {
    pub const IMAGES_DIR_FD: u32 = 1;
    pub const PID: u32 = 2;
    pub const LEAVE_RUNNING: u32 = 3;
    pub const EXT_UNIX_SK: u32 = 4;
    pub const TCP_ESTABLISHED: u32 = 5;
    pub const SHELL_JOB: u32 = 7;
    pub const FILE_LOCKS: u32 = 8;
    pub const LOG_LEVEL: u32 = 9;
    pub const LOG_FILE: u32 = 10;
    pub const PAGE_SERVER: u32 = 11;
    pub const NOTIFY_SCRIPTS: u32 = 12;
    pub const ROOT: u32 = 13;
    pub const PARENT_IMG: u32 = 14;
    pub const TRACK_MEM: u32 = 15;
    pub const AUTO_DEDUP: u32 = 16;
    pub const WORK_DIR_FD: u32 = 17;
    pub const LINK_REMAP: u32 = 18;
    pub const MANAGE_CGROUPS: u32 = 24;
    pub const CGROUP_ROOT: u32 = 25;
    pub const SIBLING: u32 = 26;
    pub const INHERIT_FD: u32 = 27;
    pub const MANAGE_CGROUPS_MODE: u32 = 34;
    pub const EXTERNAL: u32 = 37;
    pub const EMPTY_NS: u32 = 38;
    pub const FREEZE_CGROUP: u32 = 44;
    pub const TCP_SKIP_IN_FLIGHT: u32 = 46;
    pub const LAZY_PAGES: u32 = 48;
    pub const STATUS_FD: u32 = 49;
    pub const ORPHAN_PTS_MASTER: u32 = 50;
    pub const CONFIG_FILE: u32 = 51;
    pub const LSM_PROFILE: u32 = 53;
    pub const LSM_MOUNT_CONTEXT: u32 = 63;
    pub const NETWORK_LOCK: u32 = 64;
}

/// A message that is being written, field by field.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Message(Vec<u8>);

impl Message {
    pub fn number(&mut self, field: u32, value: u64) -> &mut Self {
        self.varint(u64::from(field) << 3 | NUMBER);
        self.varint(value);
        self
    }

    pub fn set(&mut self, field: u32, value: bool) -> &mut Self {
        self.number(field, value.into())
    }

    /// The receiver has it under the same number.
    pub fn descriptor(&mut self, field: u32, fd: BorrowedFd) -> &mut Self {
        self.number(field, fd.as_raw_fd() as u64)
    }

    pub fn text(&mut self, field: u32, value: &str) -> &mut Self {
        self.bytes(field, value.as_bytes())
    }

    pub fn message(&mut self, field: u32, value: &Message) -> &mut Self {
        self.bytes(field, &value.0)
    }

    fn bytes(&mut self, field: u32, value: &[u8]) -> &mut Self {
        self.varint(u64::from(field) << 3 | BYTES);
        self.varint(value.len() as u64);
        self.0.extend(value);
        self
    }

    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// `criu_req`: the order itself.
pub fn request(kind: Kind, options: &Message) -> Message {
    let mut all = Message::default();
    all.number(1, kind as u64).message(2, options);
    all
}

/// `criu_req`: whether what a notification was about went well.
pub fn notified(well: bool) -> Message {
    let mut all = Message::default();
    all.number(1, Kind::Notify as u64).set(3, well);
    all
}

/// `criu_resp`, of who could not become CRIU at all.
pub fn failure(why: &str) -> Message {
    let mut all = Message::default();
    all.number(1, 0).set(2, false).text(9, why);
    all
}

/// What CRIU says: `criu_resp`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Answer {
    pub kind: u64,
    pub success: bool,
    pub notification: Option<Notification>,
    /// The restored init, as CRIU sees it.
    pub restored: Option<i32>,
    /// What went wrong, as errno(3); 0 when it is not known.
    pub errno: i32,
    pub why: String,
}

/// Something is about to happen, or has: `criu_notify`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Notification {
    /// `post-restore`.
    pub script: String,
    pub pid: i32,
}

impl Answer {
    pub fn parse(text: &[u8]) -> Result<Answer> {
        let mut answer = Answer::default();
        for (field, value) in fields(text)? {
            match (field, value) {
                (1, Value::Number(kind)) => answer.kind = kind,
                (2, Value::Number(success)) => answer.success = success != 0,
                (4, Value::Bytes(text)) => {
                    for (field, value) in fields(text)? {
                        if let (1, Value::Number(pid)) = (field, value) {
                            answer.restored = Some(pid as i32);
                        }
                    }
                }
                (5, Value::Bytes(text)) => answer.notification = Some(notification(text)?),
                (7, Value::Number(errno)) => answer.errno = errno as i32,
                (9, Value::Bytes(why)) => answer.why = String::from_utf8_lossy(why).into_owned(),
                _ => {}
            }
        }
        Ok(answer)
    }
}

fn notification(text: &[u8]) -> Result<Notification> {
    let mut notification = Notification::default();
    for (field, value) in fields(text)? {
        match (field, value) {
            (1, Value::Bytes(script)) => {
                notification.script = String::from_utf8_lossy(script).into_owned();
            }
            (2, Value::Number(pid)) => notification.pid = pid as i32,
            _ => {}
        }
    }
    Ok(notification)
}

/// Wire types.
const NUMBER: u64 = 0;
const BYTES: u64 = 2;

enum Value<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

fn fields(mut text: &[u8]) -> Result<Vec<(u64, Value<'_>)>> {
    let mut all = Vec::new();
    while !text.is_empty() {
        let key = varint(&mut text)?;
        let value = match key & 7 {
            NUMBER => Value::Number(varint(&mut text)?),
            BYTES => {
                let length = usize::try_from(varint(&mut text)?)?;
                let (value, rest) = text.split_at_checked(length).context(SHORT)?;
                text = rest;
                Value::Bytes(value)
            }
            other => bail!("a message of CRIU has a field of wire type {other}"),
        };
        all.push((key >> 3, value));
    }
    Ok(all)
}

const SHORT: &str = "a message of CRIU ends too early";

fn varint(text: &mut &[u8]) -> Result<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = text.split_first().context(SHORT)?;
        *text = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    bail!("a number in a message of CRIU has no end")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_what_protoc_would_write() {
        let mut options = Message::default();
        options
            .number(field::IMAGES_DIR_FD, 5)
            .number(field::PID, 300)
            .set(field::LEAVE_RUNNING, true)
            .text(field::LOG_FILE, "dump.log")
            .number(field::MANAGE_CGROUPS_MODE, CgroupMode::Soft as u64);
        let mut expected = vec![8, 1, 18, 21, 8, 5, 16, 0xac, 2, 24, 1, 82, 8];
        expected.extend(b"dump.log");
        expected.extend([0x90, 2, 3]);
        expected[3] = (expected.len() - 4) as u8;
        assert_eq!(request(Kind::Dump, &options).as_bytes(), expected);
        assert_eq!(notified(false).as_bytes(), [8, 6, 24, 0]);
    }

    #[test]
    fn answers_are_understood_and_what_is_unknown_in_them_is_passed_over() {
        let mut inner = Message::default();
        inner.text(1, "post-restore").number(2, 4711);
        let mut text = Message::default();
        text.number(1, 6)
            .set(2, true)
            .message(5, &inner)
            .text(77, "new");
        let heard = Answer::parse(text.as_bytes()).unwrap();
        assert!(heard.success);
        let notification = heard.notification.unwrap();
        assert_eq!(
            (notification.script.as_str(), notification.pid),
            ("post-restore", 4711)
        );

        let mut restored = Message::default();
        restored.number(1, 42);
        let mut text = Message::default();
        text.number(1, 2)
            .set(2, true)
            .message(4, &restored)
            .number(7, 17);
        let heard = Answer::parse(text.as_bytes()).unwrap();
        assert_eq!((heard.kind, heard.restored, heard.errno), (2, Some(42), 17));

        let heard = Answer::parse(failure("no criu").as_bytes()).unwrap();
        assert_eq!((heard.success, heard.why.as_str()), (false, "no criu"));
    }

    #[test]
    fn what_is_no_message_is_an_error() {
        for broken in [&[8][..], &[18, 9, 1], &[9, 0], &[0x80; 12], &[42, 2, 8]] {
            assert!(Answer::parse(broken).is_err(), "{broken:?}");
        }
    }
}
