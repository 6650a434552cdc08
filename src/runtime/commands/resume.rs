//! `resume`: lets a paused container go on.

use super::{cgroup_of, take};
use crate::runtime::cli::Global;
use crate::runtime::status::Act;
use anyhow::{Result, bail};

pub fn resume(global: &Global, id: &str) -> Result<()> {
    let container = take(global, id, Act::Resume)?;
    let cgroup = cgroup_of(&container, "resume")?;
    cgroup.set_frozen(false)?;
    match cgroup.wait_until_thawed()? {
        true => Ok(()),
        false => bail!(
            "container {id} still stands: a cgroup above {} is frozen (cgroup.freeze)",
            cgroup.path().display()
        ),
    }
}
