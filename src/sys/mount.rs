//! The mount API by file descriptor (Linux 5.2, mount_setattr 5.12): open_tree(2), move_mount(2),
//! fsopen(2) and friends. A mount is built detached, configured, and put in place by descriptor,
//! so no path is looked up twice (CVE-2021-30465).

use super::error::{Call, Error, Result, retry};
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::stat::Mode;
use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// `AT_FDCWD` as a descriptor to borrow.
pub fn cwd() -> BorrowedFd<'static> {
    // SAFETY: AT_FDCWD is a constant that the kernel takes in place of a descriptor; nobody closes it.
    unsafe { BorrowedFd::borrow_raw(libc::AT_FDCWD) }
}

/// A path as the kernel takes it. EINVAL where it holds a NUL byte.
fn c_path(call: &'static str, path: &Path) -> Result<CString> {
    CString::new(path.as_os_str().as_bytes())
        .map_err(|_| Error::new(call, format!("{path:?}"), Errno::EINVAL))
}

fn c_str(call: &'static str, text: &str) -> Result<CString> {
    CString::new(text).map_err(|_| Error::new(call, format!("{text:?}"), Errno::EINVAL))
}

/// The descriptor that a successful call gave.
fn owned(fd: libc::c_long) -> OwnedFd {
    // SAFETY: only called with the non-negative result of a call that makes a new descriptor.
    unsafe { OwnedFd::from_raw_fd(fd as RawFd) }
}

fn open_tree_flags(call_flags: u32, recursive: bool) -> u32 {
    let mut flags = call_flags | libc::OPEN_TREE_CLOEXEC;
    if recursive {
        flags |= libc::AT_RECURSIVE as u32;
    }
    flags
}

/// A detached copy of the mount at `path` (with what is below it when `recursive`), as
/// `mount --bind` would attach. Follows symbolic links.
pub fn clone_tree(path: &Path, recursive: bool) -> Result<OwnedFd> {
    let c = c_path("open_tree", path)?;
    let flags = open_tree_flags(libc::OPEN_TREE_CLONE, recursive);
    open_tree(libc::AT_FDCWD, &c, flags, || {
        format!("{path:?}, {}", clone_flag_names(recursive))
    })
}

/// Like [`clone_tree`], of what a descriptor refers to.
pub fn clone_tree_at(fd: BorrowedFd, recursive: bool) -> Result<OwnedFd> {
    let flags = open_tree_flags(
        libc::OPEN_TREE_CLONE | libc::AT_EMPTY_PATH as u32,
        recursive,
    );
    open_tree(fd.as_raw_fd(), c"", flags, || {
        format!("{}, {}", fd.as_raw_fd(), clone_flag_names(recursive))
    })
}

fn clone_flag_names(recursive: bool) -> &'static str {
    if recursive {
        "OPEN_TREE_CLONE|AT_RECURSIVE"
    } else {
        "OPEN_TREE_CLONE"
    }
}

fn open_tree(dir: RawFd, path: &CStr, flags: u32, args: impl Fn() -> String) -> Result<OwnedFd> {
    retry("open_tree", args, || {
        // SAFETY: `path` is a NUL-terminated string that outlives the call.
        unsafe { libc::syscall(libc::SYS_open_tree, dir, path.as_ptr(), flags) }
    })
    .map(owned)
}

/// Attaches the detached mount `from` over what `to` refers to.
pub fn attach(from: BorrowedFd, to: BorrowedFd) -> Result<()> {
    const MOVE_MOUNT_F_EMPTY_PATH: u32 = 0x4;
    const MOVE_MOUNT_T_EMPTY_PATH: u32 = 0x40;
    retry(
        "move_mount",
        || format!("{}, {}", from.as_raw_fd(), to.as_raw_fd()),
        || {
            // SAFETY: both paths are NUL-terminated constants.
            unsafe {
                libc::syscall(
                    libc::SYS_move_mount,
                    from.as_raw_fd(),
                    c"".as_ptr(),
                    to.as_raw_fd(),
                    c"".as_ptr(),
                    MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH,
                )
            }
        },
    )
    .map(drop)
}

/// mount_setattr(2) on the mount that `mount` refers to: MOUNT_ATTR_* to set and to clear, and a
/// propagation type (MS_PRIVATE, …; 0 for none).
pub fn set_attr(
    mount: BorrowedFd,
    recursive: bool,
    set: u64,
    clear: u64,
    propagation: u64,
) -> Result<()> {
    let attr = libc::mount_attr {
        attr_set: set,
        attr_clr: clear,
        propagation,
        userns_fd: 0,
    };
    mount_setattr(mount, recursive, &attr, || {
        let fd = mount.as_raw_fd();
        format!("{fd}, set {set:#x}, clear {clear:#x}, propagation {propagation:#x}")
    })
}

/// Maps the ids of a detached mount, and of those below it when `recursive`, as the user namespace
/// `user_namespace` maps them (MOUNT_ATTR_IDMAP, Linux 5.12). EINVAL: a file system in it cannot do
/// that; EPERM: its ids are mapped already, or the file system is not the caller's to map.
pub fn map_ids(mount: BorrowedFd, recursive: bool, user_namespace: BorrowedFd) -> Result<()> {
    let attr = libc::mount_attr {
        attr_set: libc::MOUNT_ATTR_IDMAP,
        attr_clr: 0,
        propagation: 0,
        userns_fd: user_namespace.as_raw_fd() as u64,
    };
    mount_setattr(mount, recursive, &attr, || {
        let (mount, user) = (mount.as_raw_fd(), user_namespace.as_raw_fd());
        format!("{mount}, MOUNT_ATTR_IDMAP, {user}")
    })
}

fn mount_setattr(
    mount: BorrowedFd,
    recursive: bool,
    attr: &libc::mount_attr,
    args: impl Fn() -> String,
) -> Result<()> {
    let mut flags = libc::AT_EMPTY_PATH;
    if recursive {
        flags |= libc::AT_RECURSIVE;
    }
    retry("mount_setattr", args, || {
        // SAFETY: `attr` is a whole mount_attr of the size that is passed, and outlives the call.
        unsafe {
            libc::syscall(
                libc::SYS_mount_setattr,
                mount.as_raw_fd(),
                c"".as_ptr(),
                flags,
                &raw const *attr,
                size_of::<libc::mount_attr>(),
            )
        }
    })
    .map(drop)
}

/// A file system being configured (fsopen(2), fsconfig(2)).
pub struct FsContext {
    fd: OwnedFd,
    fstype: String,
}

const FSCONFIG_SET_FLAG: u32 = 0;
const FSCONFIG_SET_STRING: u32 = 1;
const FSCONFIG_CMD_CREATE: u32 = 6;
const FSCONFIG_CMD_RECONFIGURE: u32 = 7;

impl FsContext {
    /// A new instance of `fstype`. ENODEV: the kernel does not know it.
    pub fn open(fstype: &str) -> Result<Self> {
        let c = c_str("fsopen", fstype)?;
        let fd = retry(
            "fsopen",
            || format!("{fstype:?}"),
            || {
                // SAFETY: `c` is NUL-terminated and outlives the call. 1 is FSOPEN_CLOEXEC.
                unsafe { libc::syscall(libc::SYS_fsopen, c.as_ptr(), 1) }
            },
        )
        .map(owned)?;
        Ok(FsContext {
            fd,
            fstype: fstype.to_owned(),
        })
    }

    /// The file system mounted where `mount` points, to be reconfigured (fspick(2)).
    pub fn pick(mount: BorrowedFd) -> Result<Self> {
        const FSPICK_CLOEXEC: u32 = 0x1;
        const FSPICK_EMPTY_PATH: u32 = 0x8;
        let fd = retry(
            "fspick",
            || mount.as_raw_fd().to_string(),
            || {
                // SAFETY: the path is a NUL-terminated constant.
                unsafe {
                    libc::syscall(
                        libc::SYS_fspick,
                        mount.as_raw_fd(),
                        c"".as_ptr(),
                        FSPICK_CLOEXEC | FSPICK_EMPTY_PATH,
                    )
                }
            },
        )
        .map(owned)?;
        Ok(FsContext {
            fd,
            fstype: String::new(),
        })
    }

    /// One parameter: `key=value`, or the flag `key`. The kernel takes values of at most 255 bytes.
    pub fn set(&self, key: &str, value: Option<&str>) -> Result<()> {
        let c_key = c_str("fsconfig", key)?;
        let c_value = value.map(|v| c_str("fsconfig", v)).transpose()?;
        let command = match c_value {
            Some(_) => FSCONFIG_SET_STRING,
            None => FSCONFIG_SET_FLAG,
        };
        let args = || match value {
            Some(value) => format!("{}, {key}={value}", self.fstype),
            None => format!("{}, {key}", self.fstype),
        };
        self.config(command, Some(&c_key), c_value.as_deref(), args)
    }

    /// Makes the superblock.
    pub fn create(&self) -> Result<()> {
        self.config(FSCONFIG_CMD_CREATE, None, None, || {
            format!("{}, FSCONFIG_CMD_CREATE", self.fstype)
        })
    }

    /// Applies the parameters to the superblock that was picked.
    pub fn reconfigure(&self) -> Result<()> {
        self.config(FSCONFIG_CMD_RECONFIGURE, None, None, || {
            "FSCONFIG_CMD_RECONFIGURE".to_owned()
        })
    }

    fn config(
        &self,
        command: u32,
        key: Option<&CStr>,
        value: Option<&CStr>,
        args: impl Fn() -> String,
    ) -> Result<()> {
        let pointer = |s: Option<&CStr>| s.map_or(std::ptr::null(), CStr::as_ptr);
        let (key, value) = (pointer(key), pointer(value));
        retry("fsconfig", args, || {
            // SAFETY: `key` and `value` are null or NUL-terminated strings that outlive the call.
            unsafe {
                libc::syscall(
                    libc::SYS_fsconfig,
                    self.fd.as_raw_fd(),
                    command,
                    key,
                    value,
                    0,
                )
            }
        })
        .map(drop)
        .map_err(|e| self.explain(e))
    }

    /// The file system's own words on a refusal wait in the context's log ("e tmpfs: Bad value
    /// for 'size'"); they say more than EINVAL.
    fn explain(&self, mut error: Error) -> Error {
        let mut text = [0u8; 512];
        if let Ok(n) = nix::unistd::read(self.fd.as_fd(), &mut text) {
            let said = String::from_utf8_lossy(&text[..n]);
            error.args = format!("{} [{}]", error.args, said.trim());
        }
        error
    }

    /// The superblock as a detached mount with MOUNT_ATTR_* `attr`.
    pub fn mount(&self, attr: u64) -> Result<OwnedFd> {
        retry(
            "fsmount",
            || format!("{}, attr {attr:#x}", self.fstype),
            || {
                // SAFETY: no pointers are passed. 1 is FSMOUNT_CLOEXEC.
                unsafe { libc::syscall(libc::SYS_fsmount, self.fd.as_raw_fd(), 1, attr) }
            },
        )
        .map(owned)
    }
}

/// mount(2) on the path of a descriptor: for parameters that fsconfig(2) cannot carry (more than
/// 255 bytes). Needs the host's /proc at hand.
pub fn mount_by_path(
    source: &str,
    target: BorrowedFd,
    fstype: &str,
    flags: u64,
    data: &str,
) -> Result<()> {
    let path = format!("/proc/self/fd/{}", target.as_raw_fd());
    nix::mount::mount(
        Some(source),
        path.as_str(),
        Some(fstype),
        nix::mount::MsFlags::from_bits_truncate(flags),
        Some(data),
    )
    .call("mount", || format!("{source:?}, {path:?}, {fstype:?}"))
}

/// Changes the propagation of the mount at `path` (MS_SLAVE|MS_REC, …; mount_namespaces(7)).
pub fn set_propagation(path: &Path, flags: u64) -> Result<()> {
    nix::mount::mount(
        None::<&str>,
        path,
        None::<&str>,
        nix::mount::MsFlags::from_bits_truncate(flags),
        None::<&str>,
    )
    .call("mount", || format!("{path:?}, propagation {flags:#x}"))
}

/// Makes the current directory the root, stacks the old root on it and takes that off
/// (pivot_root(2), "pivot_root(".", ".")").
pub fn pivot_into_cwd(old_root_may_propagate: bool) -> Result<()> {
    let old_root = match old_root_may_propagate {
        true => Some(
            nix::fcntl::open("/", OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty())
                .call("open", || "\"/\", O_PATH".to_owned())?,
        ),
        false => None,
    };
    nix::unistd::pivot_root(".", ".").call("pivot_root", || "\".\", \".\"".to_owned())?;
    if let Some(old_root) = &old_root {
        // Else the unmount below would reach the host. By descriptor: for mount(2), unlike for
        // umount(2), "." is the new root that lies below the old one.
        set_attr(old_root.as_fd(), true, 0, 0, libc::MS_SLAVE)?;
    }
    nix::mount::umount2(".", nix::mount::MntFlags::MNT_DETACH)
        .call("umount2", || "old root, MNT_DETACH".to_owned())?;
    nix::unistd::chdir("/").call("chdir", || "\"/\"".to_owned())
}

/// Moves the mount at the current directory over `/` and makes it the root (`--no-pivot`).
pub fn move_cwd_to_root() -> Result<()> {
    nix::mount::mount(
        Some("."),
        "/",
        None::<&str>,
        nix::mount::MsFlags::MS_MOVE,
        None::<&str>,
    )
    .call("mount", || "\".\", \"/\", MS_MOVE".to_owned())?;
    nix::unistd::chroot(".").call("chroot", || "\".\"".to_owned())?;
    nix::unistd::chdir("/").call("chdir", || "\"/\"".to_owned())
}
