//! Options that say what a container's processes may do.

use crate::engine::config::Wishes;
use clap::Args;

#[derive(Debug, Args)]
pub struct Security {
    /// One more capability, or ALL
    #[arg(long, value_name = "CAP")]
    cap_add: Vec<String>,
    /// One capability less, or ALL
    #[arg(long, value_name = "CAP")]
    cap_drop: Vec<String>,
    /// All capabilities and devices, no seccomp, nothing of /proc hidden
    #[arg(long)]
    privileged: bool,
}

impl Security {
    pub fn wish(&self, wishes: &mut Wishes) {
        let all = caps::runtime::thread_all_supported();
        wishes.all_caps = all.iter().map(ToString::to_string).collect();
        wishes.cap_add = self.cap_add.clone();
        wishes.cap_drop = self.cap_drop.clone();
        wishes.privileged = self.privileged;
    }
}
