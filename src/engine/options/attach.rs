//! Options that say how a user is connected to a container.

use crate::engine::attach::Wanted;
use crate::engine::keys::{self, Keys};
use crate::engine::record::Record;
use anyhow::Result;
use clap::{ArgAction, Args};

#[derive(Debug, Args)]
pub struct Attachment {
    /// The keys that leave a terminal; empty for none
    #[arg(long, value_name = "KEYS", default_value = keys::DEFAULT)]
    detach_keys: String,
    /// Signals to sc are ones to the container
    #[arg(long, value_name = "BOOL", default_value_t = true, default_missing_value = "true", num_args = 0..=1, require_equals = true, action = ArgAction::Set)]
    sig_proxy: bool,
}

impl Attachment {
    pub fn wanted(&self, record: &Record, stdin: bool) -> Result<Wanted> {
        Ok(Wanted {
            stdin: stdin && record.interactive,
            terminal: record.terminal,
            signals: self.sig_proxy,
            // Only a terminal has keys; elsewhere bytes are bytes.
            keys: match record.terminal {
                true => Keys::parse(&self.detach_keys)?,
                false => Keys::default(),
            },
        })
    }
}
