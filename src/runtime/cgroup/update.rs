//! How are the limits of a cgroup changed while processes live in it? All of them, or none.

use super::{Cgroup, read_file, write_file};
use crate::runtime::plan::CgroupWrite;
use crate::runtime::plan::update::{Step, arrange, back};
use anyhow::{Result, bail};
use nix::errno::Errno;

impl Cgroup {
    /// Performs `writes`. A file that is not there is found before the first of them; after a
    /// refused one, those before it are taken back. Gives what was done, for
    /// [`Cgroup::take_back`].
    pub fn update(&self, writes: &[CgroupWrite], check_before_update: bool) -> Result<Vec<Step>> {
        let mut steps = Vec::new();
        for write in writes {
            steps.extend(self.step(write)?);
        }
        if check_before_update {
            self.check_memory(writes)?;
        }
        let steps = arrange(steps);
        for (i, step) in steps.iter().enumerate() {
            if let Err(errno) = write_file(self.dir(), &step.file, &step.value) {
                self.take_back(&steps[..i]);
                return Err(self.refused(&step.field, &step.file, &step.value, errno));
            }
        }
        Ok(steps)
    }

    /// Writes the old values, last change first. What the kernel does not take back stays: there
    /// is an error on its way to the user already, which says what started this.
    pub fn take_back(&self, steps: &[Step]) {
        for step in steps.iter().rev() {
            if let Some(value) = back(step) {
                let _ = write_file(self.dir(), &step.file, &value);
            }
        }
    }

    /// The file that carries out `wish`, with what it holds; `None` for one that may be absent.
    fn step(&self, wish: &CgroupWrite) -> Result<Option<Step>> {
        let instead = wish.instead.as_ref().map(|i| (&i.file, &i.value));
        let candidates = [Some((&wish.file, &wish.value)), instead];
        let mut last = &wish.file;
        for (file, value) in candidates.into_iter().flatten() {
            let before = match read_file(self.dir(), file) {
                Ok(text) => text,
                // Some of `unified` can only be written.
                Err(Errno::EACCES | Errno::EINVAL | Errno::EOPNOTSUPP) => String::new(),
                Err(Errno::ENOENT) => {
                    last = file;
                    continue;
                }
                Err(errno) => bail!(
                    "{}: reading {}/{file}: {}",
                    wish.field,
                    self.path.display(),
                    errno.desc()
                ),
            };
            return Ok(Some(Step {
                field: wish.field.clone(),
                file: file.clone(),
                value: value.clone(),
                before,
            }));
        }
        match wish.optional {
            true => Ok(None),
            false => Err(self.absent(&wish.field, last)),
        }
    }
}
