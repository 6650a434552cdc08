//! `tmpcopyup`: copies a directory of the image into the tmpfs that will cover it.

use crate::sys::Call;
use anyhow::Result;
use nix::dir::Dir;
use nix::fcntl::{AtFlags, OFlag};
use nix::sys::stat::{FchmodatFlags, FileStat, Mode, SFlag};
use nix::unistd::{Gid, Uid};
use std::ffi::CStr;
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};

use super::inside::kind_of;

/// Copies what `from` (a path handle on a directory) holds into `to`: directories, files, links and
/// special files, with mode and owner. Never follows a link.
pub fn copy(from: BorrowedFd, to: BorrowedFd) -> Result<()> {
    let mut dir = Dir::openat(
        from,
        ".",
        OFlag::O_RDONLY | OFlag::O_DIRECTORY,
        Mode::empty(),
    )
    .call("openat", || "\".\"".to_owned())?;
    let names: Vec<_> = dir
        .iter()
        .map(|entry| entry.map(|e| e.file_name().to_owned()))
        .collect::<nix::Result<_>>()
        .call("getdents", String::new)?;
    for name in names {
        if name.as_c_str() != c"." && name.as_c_str() != c".." {
            copy_entry(from, to, &name)?;
        }
    }
    Ok(())
}

/// Gives the directory `to` the owner of `from`.
pub fn copy_owner(from: BorrowedFd, to: BorrowedFd) -> Result<()> {
    let stat = nix::sys::stat::fstat(from).call("fstat", String::new)?;
    own(to, c".", &stat)
}

fn copy_entry(from: BorrowedFd, to: BorrowedFd, name: &CStr) -> Result<()> {
    let args = || format!("{name:?}");
    let stat =
        nix::sys::stat::fstatat(from, name, AtFlags::AT_SYMLINK_NOFOLLOW).call("fstatat", args)?;
    match kind_of(&stat) {
        SFlag::S_IFDIR => {
            nix::sys::stat::mkdirat(to, name, mode_of(&stat)).call("mkdirat", args)?;
            let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
            let open = |dir| nix::fcntl::openat(dir, name, flags, Mode::empty());
            let (below, copy_of_it) = (open(from), open(to));
            let (below, copy_of_it) = (
                below.call("openat", args)?,
                copy_of_it.call("openat", args)?,
            );
            copy(below.as_fd(), copy_of_it.as_fd())?;
        }
        SFlag::S_IFLNK => {
            let target = nix::fcntl::readlinkat(from, name).call("readlinkat", args)?;
            nix::unistd::symlinkat(target.as_os_str(), to, name).call("symlinkat", args)?;
        }
        SFlag::S_IFREG => copy_file(from, to, name, &stat)?,
        special => nix::sys::stat::mknodat(to, name, special, mode_of(&stat), stat.st_rdev)
            .call("mknodat", args)?,
    }
    own(to, name, &stat)?;
    // Links have none of their own. For all others again: chown(2) takes the set-user-ID bit away.
    if kind_of(&stat) != SFlag::S_IFLNK {
        nix::sys::stat::fchmodat(to, name, mode_of(&stat), FchmodatFlags::FollowSymlink)
            .call("fchmodat", args)?;
    }
    Ok(())
}

fn copy_file(from: BorrowedFd, to: BorrowedFd, name: &CStr, stat: &FileStat) -> Result<()> {
    let flags = OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK;
    let source = nix::fcntl::openat(from, name, flags | OFlag::O_RDONLY, Mode::empty())
        .call("openat", || format!("{name:?}"))?;
    let create = flags | OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL;
    let target = nix::fcntl::openat(to, name, create, mode_of(stat))
        .call("openat", || format!("{name:?}"))?;
    std::io::copy(&mut File::from(source), &mut File::from(target))?;
    Ok(())
}

fn own(dir: BorrowedFd, name: &CStr, stat: &FileStat) -> Result<()> {
    let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
    let flags = AtFlags::AT_SYMLINK_NOFOLLOW;
    match nix::unistd::fchownat(dir, name, Some(uid), Some(gid), flags) {
        // An owner without a number in this user namespace: the copy stays its root's.
        Err(nix::errno::Errno::EINVAL | nix::errno::Errno::EPERM) => Ok(()),
        other => Ok(other.call("fchownat", || format!("{name:?}"))?),
    }
}

fn mode_of(stat: &FileStat) -> Mode {
    Mode::from_bits_truncate(stat.st_mode & !SFlag::S_IFMT.bits())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    #[test]
    fn a_tree_is_copied_with_modes_and_links_not_followed() -> Result<()> {
        let dir = std::env::temp_dir().join(format!("sc-copy-up-{}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        let (from, to) = (dir.join("from"), dir.join("to"));
        fs::create_dir_all(from.join("sub"))?;
        fs::create_dir_all(&to)?;
        fs::write(from.join("sub/file"), "content")?;
        fs::set_permissions(from.join("sub/file"), fs::Permissions::from_mode(0o4640))?;
        fs::set_permissions(from.join("sub"), fs::Permissions::from_mode(0o2711))?;
        symlink("/nowhere", from.join("link"))?;
        copy(File::open(&from)?.as_fd(), File::open(&to)?.as_fd())?;
        assert_eq!(fs::read_to_string(to.join("sub/file"))?, "content");
        let mode =
            |p: &str| fs::symlink_metadata(to.join(p)).map(|m| m.permissions().mode() & 0o7777);
        assert_eq!(mode("sub/file")?, 0o4640);
        assert_eq!(mode("sub")?, 0o2711);
        assert_eq!(
            fs::read_link(to.join("link"))?,
            std::path::Path::new("/nowhere")
        );
        fs::remove_dir_all(dir)?;
        Ok(())
    }
}
