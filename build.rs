//! Tells the program which commit it is built from; `unknown` outside the project's own repository
//! (a tarball, perhaps unpacked inside another one).

use std::path::Path;
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let ours = git(&["ls-files", "--error-unmatch", "build.rs"]).is_some();
    let commit = git(&["rev-parse", "HEAD"]).filter(|_| ours);
    println!(
        "cargo::rustc-env=SC_COMMIT={}",
        commit.as_deref().unwrap_or("unknown")
    );
    // What a commit or a checkout changes; a path that is not there would rebuild every time.
    for name in ["HEAD", "logs/HEAD"] {
        if let Some(path) =
            git(&["rev-parse", "--git-path", name]).filter(|path| ours && Path::new(path).exists())
        {
            println!("cargo::rerun-if-changed={path}");
        }
    }
}

fn git(args: &[&str]) -> Option<String> {
    let out = Command::new("git").args(args).output().ok()?;
    let text = String::from_utf8(out.stdout).ok()?;
    out.status.success().then(|| text.trim().to_owned())
}
