//! What a container sees of its service manager: a variable, and the directory that it leads to.

use oci_spec::runtime::Mount;
use std::path::Path;

/// Where the container sees the directory: runc's place.
const INSIDE: &str = "/run/notify";
pub const SOCKET: &str = "notify.sock";

/// The variable that the container's program is given.
pub fn variable() -> String {
    format!("NOTIFY_SOCKET={INSIDE}/{SOCKET}")
}

/// What shows `directory` to the container: to find a socket in, not to keep anything there.
pub fn mount(directory: &Path) -> Mount {
    let options = ["bind", "nosuid", "noexec", "nodev", "ro"];
    let mut mount = Mount::default();
    mount
        .set_destination(INSIDE.into())
        .set_typ(Some("bind".to_owned()))
        .set_source(Some(directory.to_owned()))
        .set_options(Some(options.map(str::to_owned).to_vec()));
    mount
}
