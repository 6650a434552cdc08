//! How far is it? A bar for each piece of work on a terminal, a line at its end elsewhere, nothing
//! with `--quiet`. All of it on stderr: stdout is for results.
//!
//! ```text
//! let progress = Progress::new(quiet);
//! let bar = progress.bar("layer 4bcff63911fc", Some(size));
//! bar.add(n);            // from any thread
//! bar.done("pulled");    // or dropped: the piece of work failed
//! ```

use super::show::size;
use std::io::{IsTerminal, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Cheap to clone; all clones draw the same bars.
#[derive(Clone)]
pub struct Progress(Arc<Mutex<Screen>>);

/// One piece of work. Dropped without [`Bar::done`], it stays as it was.
pub struct Bar {
    progress: Progress,
    row: usize,
}

struct Screen {
    style: Style,
    rows: Vec<Row>,
    /// Rows that are on the terminal now, the cursor below them.
    drawn: usize,
    last: Option<Instant>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Style {
    Quiet,
    Lines,
    Bars,
}

struct Row {
    label: String,
    done: u64,
    total: Option<u64>,
    end: Option<String>,
}

/// Bars are drawn at most this often.
const FRAME: Duration = Duration::from_millis(100);
const WIDTH: u64 = 30;

impl Progress {
    pub fn new(quiet: bool) -> Progress {
        let style = match (quiet, std::io::stderr().is_terminal()) {
            (true, _) => Style::Quiet,
            (false, true) => Style::Bars,
            (false, false) => Style::Lines,
        };
        Progress(Arc::new(Mutex::new(Screen {
            style,
            rows: Vec::new(),
            drawn: 0,
            last: None,
        })))
    }

    /// A new piece of work; `total` in bytes, where it is known.
    pub fn bar(&self, label: &str, total: Option<u64>) -> Bar {
        let mut screen = self.screen();
        screen.rows.push(Row {
            label: label.to_owned(),
            done: 0,
            total,
            end: None,
        });
        let row = screen.rows.len() - 1;
        screen.draw(true);
        Bar {
            progress: self.clone(),
            row,
        }
    }

    /// A line of its own, above the bars; below them when all are done.
    pub fn say(&self, line: &str) {
        let mut screen = self.screen();
        if screen.style == Style::Quiet {
            return;
        }
        // Below, when there is nothing left to be drawn.
        match screen.rows.iter().all(|row| row.end.is_some()) {
            true => {
                screen.rows.clear();
                screen.drawn = 0;
            }
            false => screen.erase(),
        }
        put(&format!("{}\n", super::show::printable(line)));
        screen.draw(true);
    }

    fn screen(&self) -> MutexGuard<'_, Screen> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Bar {
    /// So many bytes more.
    pub fn add(&self, bytes: u64) {
        let mut screen = self.progress.screen();
        screen.rows[self.row].done += bytes;
        screen.draw(false);
    }

    /// Starts over at so many bytes (a resumed or repeated download).
    pub fn reset(&self, bytes: u64) {
        let mut screen = self.progress.screen();
        screen.rows[self.row].done = bytes;
        screen.draw(false);
    }

    /// The work is done; `how` is the word for it.
    pub fn done(self, how: &str) {
        let mut screen = self.progress.screen();
        let row = &mut screen.rows[self.row];
        row.end = Some(how.to_owned());
        if screen.style == Style::Lines {
            put(&(screen.rows[self.row].text() + "\n"));
        }
        screen.draw(true);
    }
}

impl Screen {
    fn erase(&mut self) {
        if self.drawn > 0 {
            put(&format!("\x1b[{}A\x1b[J", self.drawn));
            self.drawn = 0;
        }
    }

    fn draw(&mut self, now: bool) {
        let fresh = self.last.is_some_and(|last| last.elapsed() < FRAME);
        if self.style != Style::Bars || fresh && !now {
            return;
        }
        self.last = Some(Instant::now());
        let mut text = String::new();
        if self.drawn > 0 {
            text = format!("\x1b[{}A", self.drawn);
        }
        for row in &self.rows {
            text += &row.text();
            text += "\x1b[K\n";
        }
        self.drawn = self.rows.len();
        put(&text);
    }
}

impl Row {
    fn text(&self) -> String {
        let label = super::show::printable(&self.label);
        if let Some(end) = &self.end {
            return format!("{label}  {end} {}", size(self.total.unwrap_or(self.done)));
        }
        match self.total {
            Some(total) if total > 0 => {
                let filled = (self.done.min(total) * WIDTH / total) as usize;
                let bar = "=".repeat(filled) + &" ".repeat(WIDTH as usize - filled);
                format!("{label}  [{bar}] {} / {}", size(self.done), size(total))
            }
            _ => format!("{label}  {}", size(self.done)),
        }
    }
}

/// When stderr is closed, nobody is left to be told.
fn put(text: &str) {
    let _ = std::io::stderr().write_all(text.as_bytes());
}
