//! Tells the program which commit it is built from; `unknown` outside the project's own repository
//! (a tarball, perhaps unpacked inside another one); and tells the linker where it begins.

use std::path::Path;
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    enter_early();
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

/// The program begins in `src/sys/entry.rs`, whose code runs before anything is relocated: so only where
/// nothing is (`.cargo/config.toml`), and where the compiler makes plain code of it.
fn enter_early() {
    let var = |name| std::env::var(name).unwrap_or_default();
    let fixed = var("CARGO_ENCODED_RUSTFLAGS").contains("relocation-model=static");
    if fixed && var("CARGO_CFG_TARGET_ARCH") == "x86_64" && var("OPT_LEVEL") != "0" {
        println!("cargo::rustc-link-arg-bin=sc-runtime=-Wl,-e,sc_start");
    }
}

fn git(args: &[&str]) -> Option<String> {
    let out = Command::new("git").args(args).output().ok()?;
    let text = String::from_utf8(out.stdout).ok()?;
    out.status.success().then(|| text.trim().to_owned())
}
