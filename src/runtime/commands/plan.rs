//! `plan` (hidden): what would be done for this bundle, one act a line. Nothing is done.

use super::{create, say};
use crate::runtime::cli::{CreateArgs, Global};
use crate::runtime::plan;
use anyhow::Result;
use std::path::Path;

pub fn plan(global: &Global, bundle: &Path, systemd_cgroup: bool) -> Result<()> {
    let args = CreateArgs {
        bundle: bundle.to_owned(),
        id: "ID".to_owned(),
        systemd_cgroup,
        ..CreateArgs::default()
    };
    say(&plan::show(&create::draw(global, &args)?.plan))
}
