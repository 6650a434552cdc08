//! `history`: how was an image built?

use super::list::Format;
use crate::image::cli::Global;
use crate::image::platform::Platform;
use crate::image::show;
use anyhow::Result;
use clap::Args;
use serde_json::json;

/// Show the steps by which an image was built, the last one first
#[derive(Debug, Args)]
pub struct History {
    /// Name or ID of the image
    #[arg(value_name = "IMAGE")]
    image: String,
    /// `json`: an object a line
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    /// Whole commands
    #[arg(long)]
    no_trunc: bool,
}

/// Of a command, in a table.
const COLUMN: usize = 45;

impl History {
    pub fn run(&self, global: &Global) -> Result<()> {
        let image = global.store()?.find(&self.image, &Platform::host())?;
        let mut layers = image.manifest.layers.iter();
        let mut steps = Vec::new();
        for step in &image.config.history {
            let size = if step.empty_layer {
                None
            } else {
                layers.next()
            }
            .map_or(0, |layer| layer.size);
            steps.push((step.clone(), size));
        }
        // An image may tell less than all.
        for layer in layers {
            steps.push((Default::default(), layer.size));
        }
        steps.reverse();
        if self.format == Format::Json {
            let line = |(step, size): &(crate::image::config::History, u64)| json!({ "CreatedAt": step.created, "CreatedBy": step.created_by, "Comment": step.comment, "Size": size });
            return show::print(
                &steps
                    .iter()
                    .map(|step| line(step).to_string() + "\n")
                    .collect::<String>(),
            );
        }
        let rows = steps.iter().map(|(step, size)| {
            let by = show::printable(&step.created_by);
            let by = match self.no_trunc || by.chars().count() <= COLUMN {
                true => by,
                false => by.chars().take(COLUMN - 1).chain(['…']).collect(),
            };
            vec![
                show::age(step.created.as_deref()),
                by,
                show::size(*size),
                show::printable(&step.comment),
            ]
        });
        show::print(&show::table(
            &["CREATED", "CREATED BY", "SIZE", "COMMENT"],
            &rows.collect::<Vec<_>>(),
        ))
    }
}
