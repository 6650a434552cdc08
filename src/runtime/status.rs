//! The state machine: what a container can be, and which act that permits
//! (runtime-spec runtime.md#state, #operations). One pure table; nobody else compares statuses.
//!
//! ```text
//!  creating ──▶ created ──start──▶ running ◀──▶ paused
//!      └───────────┴──────────────────┴───────────┴──▶ stopped ──delete──▶ nothing
//! ```

use std::fmt;

/// What a container is at this moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// `create` is at work on it.
    Creating,
    /// Its init waits for `start`.
    Created,
    /// The user's program runs.
    Running,
    /// Its cgroup is frozen.
    Paused,
    /// Its init has ended (a zombie has), or whoever created it died.
    Stopped,
}

/// What somebody wants to do with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Act {
    Start,
    Exec,
    /// `exec --ignore-paused`: the process waits with the others.
    ExecPaused,
    Kill,
    /// `kill --all`: also what init left behind.
    KillAll,
    Delete,
    DeleteForce,
    Pause,
    Resume,
    Update,
    Events,
    Checkpoint,
}

/// What the table says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    Go,
    /// Go, after its processes are killed.
    KillFirst,
    /// Why not, in runc's words: engines and their tests look for them.
    No(String),
}

/// May `act` be done to container `id`, which is `status`?
pub fn ask(act: Act, status: Status, id: &str) -> Answer {
    use Act::*;
    use Answer::{Go, KillFirst};
    use Status::*;
    let no = |why: &str| Answer::No(why.to_owned());
    match (act, status) {
        (Start, Created) => Go,
        (Start, Running) => no("cannot start an already running container"),
        (Start, Stopped) => no("cannot start a container that has stopped"),
        (Start, Creating | Paused) => {
            Answer::No(format!("cannot start a container in the {status} state"))
        }

        // Also before `start`: hooks and debuggers look into a container that waits.
        (Exec | ExecPaused, Created | Running) | (ExecPaused, Paused) => Go,
        (Exec, Paused) => no("cannot exec in a paused container (use --ignore-paused to override)"),
        (Exec | ExecPaused, Stopped) => no("cannot exec in a stopped container"),
        (Exec | ExecPaused, Creating) => {
            Answer::No(format!("cannot exec in a container in the {status} state"))
        }

        (Kill, Created | Running | Paused) => Go,
        (Kill, Creating | Stopped) => no("container not running"),

        // containerd calls it after init has ended, when the container shares a pid namespace.
        (KillAll, Created | Running | Paused | Stopped) => Go,
        (KillAll, Creating) => no("container not running"),

        (Delete, Stopped) => Go,
        // The spec wants an error; runc deletes, and engines clean up after a failed start with it.
        (Delete, Created) => KillFirst,
        (Delete, Creating | Running | Paused) => Answer::No(format!(
            "cannot delete container {id} that is not stopped: {status}"
        )),

        (DeleteForce, Stopped) => Go,
        (DeleteForce, Creating | Created | Running | Paused) => KillFirst,

        (Pause, Created | Running) => Go,
        (Pause, Creating | Paused | Stopped) => no("container not running"),
        (Resume, Paused) => Go,
        (Resume, Creating | Created | Running | Stopped) => no("container not paused"),

        (Update, Created | Running | Paused) => Go,
        (Update, Creating | Stopped) => no("container not running"),

        (Events, Created | Running | Paused) => Go,
        (Events, Creating | Stopped) => {
            Answer::No(format!("container with id {id} is not running"))
        }

        (Checkpoint, Running | Paused) => Go,
        (Checkpoint, Creating | Created | Stopped) => Answer::No(format!(
            "Container cannot be checkpointed in {status} state"
        )),
    }
}

impl Status {
    /// What `state` shows for the recorded `pid`: a stopped container has none.
    pub fn shown_pid(self, pid: i32) -> i32 {
        if self == Status::Stopped { 0 } else { pid }
    }

    pub fn name(self) -> &'static str {
        match self {
            Status::Creating => "creating",
            Status::Created => "created",
            Status::Running => "running",
            Status::Paused => "paused",
            Status::Stopped => "stopped",
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_act_is_answered_in_each_status() {
        let answer = |act, status| match ask(act, status, "web") {
            Answer::Go => "go".to_owned(),
            Answer::KillFirst => "kill first".to_owned(),
            Answer::No(why) => why,
        };
        use Act::*;
        use Status::*;
        let all = [Creating, Created, Running, Paused, Stopped];
        let table = |act| all.map(|status| answer(act, status));
        assert_eq!(
            table(Start),
            [
                "cannot start a container in the creating state",
                "go",
                "cannot start an already running container",
                "cannot start a container in the paused state",
                "cannot start a container that has stopped",
            ]
        );
        let (creating, stopped) = (
            "cannot exec in a container in the creating state",
            "cannot exec in a stopped container",
        );
        let paused = "cannot exec in a paused container (use --ignore-paused to override)";
        assert_eq!(table(Exec), [creating, "go", "go", paused, stopped]);
        assert_eq!(table(ExecPaused), [creating, "go", "go", "go", stopped]);
        let off = "container not running";
        assert_eq!(table(Kill), [off, "go", "go", "go", off]);
        assert_eq!(table(KillAll), [off, "go", "go", "go", "go"]);
        assert_eq!(
            table(Delete),
            [
                "cannot delete container web that is not stopped: creating",
                "kill first",
                "cannot delete container web that is not stopped: running",
                "cannot delete container web that is not stopped: paused",
                "go",
            ]
        );
        let kill = "kill first";
        assert_eq!(table(DeleteForce), [kill, kill, kill, kill, "go"]);
        assert_eq!(table(Pause), [off, "go", "go", off, off]);
        let still = "container not paused";
        assert_eq!(table(Resume), [still, still, still, "go", still]);
        assert_eq!(table(Update), [off, "go", "go", "go", off]);
        let silent = "container with id web is not running";
        assert_eq!(table(Events), [silent, "go", "go", "go", silent]);
        assert_eq!(
            table(Checkpoint),
            [
                "Container cannot be checkpointed in creating state",
                "Container cannot be checkpointed in created state",
                "go",
                "go",
                "Container cannot be checkpointed in stopped state",
            ]
        );
    }

    #[test]
    fn only_a_stopped_container_has_no_pid() {
        use Status::*;
        let shown = [Creating, Created, Running, Paused, Stopped].map(|s| s.shown_pid(7));
        assert_eq!(shown, [7, 7, 7, 7, 0]);
    }
}
