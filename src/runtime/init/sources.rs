//! What a bind binds: a detached copy of a part of the host's tree.
//!
//! Init makes it itself, but for three kinds: a descriptor of the runtime's own, which is inherited; a
//! bind whose ids are mapped, and a source that the root of a user namespace cannot reach. These two
//! are asked of the parent, whose helper makes them in this mount namespace.

use crate::runtime::handshake::{FromInit, InitEnd, MOST_TREES};
use crate::runtime::plan::{Mount, MountKind, RootfsPlan};
use crate::sys;
use anyhow::{Context, Result, anyhow};
use nix::errno::Errno;
use std::collections::VecDeque;
use std::os::fd::OwnedFd;

pub struct Sources<'a> {
    inherited: std::slice::Iter<'a, OwnedFd>,
    /// Those with mapped ids, in their order.
    mapped: VecDeque<OwnedFd>,
    parent: &'a InitEnd,
}

impl<'a> Sources<'a> {
    /// Asks at once for all that is known to be the parent's to make.
    pub fn new(plan: &RootfsPlan, inherited: &'a [OwnedFd], parent: &'a InitEnd) -> Result<Self> {
        let mut sources = Sources {
            inherited: inherited.iter(),
            mapped: VecDeque::new(),
            parent,
        };
        let all = plan.mounts.iter().enumerate();
        let mapped: Vec<(u32, &Mount)> = all
            .filter(|(_, mount)| mount.kind.id_mapped().is_some())
            .map(|(i, mount)| (i as u32, mount))
            .collect();
        for some in mapped.chunks(MOST_TREES) {
            let which = some.iter().map(|(i, _)| *i).collect();
            parent.tell(&FromInit::Trees(which))?;
            for (_, mount) in some {
                let tree = parent.next_tree().with_context(|| {
                    format!("{} ({})", mount.field, mount.destination.display())
                })?;
                sources.mapped.push_back(tree);
            }
        }
        Ok(sources)
    }

    /// The source of mount number `i`; `None` where it needs none.
    pub fn of(&mut self, i: usize, mount: &Mount) -> Result<Option<OwnedFd>> {
        let MountKind::Bind {
            source,
            recursive,
            id_map,
        } = &mount.kind
        else {
            return Ok(None);
        };
        if id_map.is_some() {
            return Ok(self.mapped.pop_front());
        }
        if mount.kind.source_of_parent().is_some() {
            return Ok(self.inherited.next().map(OwnedFd::try_clone).transpose()?);
        }
        match sys::mount::clone_tree(source, *recursive) {
            // Root of a user namespace is nobody to a directory of another user's.
            Err(e) if e.errno == Errno::EACCES => {
                self.parent.tell(&FromInit::Trees(vec![i as u32]))?;
                self.parent.next_tree().map(Some)
            }
            tree => tree.map(Some).map_err(|e| explain(e, *recursive)),
        }
    }
}

/// Of a failed copy of a source: words for what the errno does not say.
pub fn explain(e: sys::Error, recursive: bool) -> anyhow::Error {
    match e.errno {
        // mount_namespaces(7): it would show what the mounts below hide.
        Errno::EINVAL if !recursive => anyhow!(
            "{e} (in a user namespace what the host has mounted below the source must come along: \
             use rbind)"
        ),
        _ => e.into(),
    }
}
