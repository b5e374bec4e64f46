//! `mm embed --stdio`: rows from another program, as Arrow IPC streams.

use super::{Arguments, warn_truncated};
use crate::{
    args::{batch::OnError, columns::by_name, model::is_run},
    context::Context,
    exit::usage,
    output,
};
use anyhow::Result;
use mm_core::{Modality, Pooling};
use mm_tasks::embedding::{EmbedOptions, Embedder, embed_stream};
use std::{collections::BTreeMap, path::Path};

pub(super) fn run(dir: &Path, arguments: &Arguments, context: &Context) -> Result<()> {
    if arguments.keeps_positions() {
        usage!("--pooling none: gives a different number of vectors for each value, which a column cannot hold");
    }
    if arguments.dataset.table.cells.is_given() {
        usage!("--encoding, --missing-values, --fetch-urls: are for tables; an Arrow stream has types of its own");
    }
    if context.json {
        usage!("--json: standard output is an Arrow stream");
    }
    if is_run(dir) {
        let run = arguments.load_run(dir, context)?;
        return embed(run.embedder()?, None, arguments);
    }
    let model = arguments.load_checkpoint(dir, context)?;
    let result = embed(&model, arguments.pooling(&model), arguments);
    warn_truncated(&model);
    result
}

fn embed(model: &dyn Embedder, pooling: Option<Pooling>, arguments: &Arguments) -> Result<()> {
    let mut columns = BTreeMap::new();
    for (modality, names) in by_name(&arguments.dataset.table.column) {
        let [column] = names.as_slice() else {
            usage!("--column {modality}={}: an Arrow stream has one column for each modality", names.join("+"));
        };
        columns.insert(Modality::from(modality.as_str()), column.clone());
    }
    let options = EmbedOptions {
        modalities: arguments.dataset.modality.iter().map(|m| Modality::from(m.as_str())).collect(),
        pooling,
        normalize: arguments.normalize,
        fail_on_error: arguments.dataset.on_error == OnError::Fail,
    };
    let summary = embed_stream(model, std::io::stdin().lock(), std::io::stdout().lock(), &columns, &options)?;
    let (rows, batches) = (summary.rows, summary.batches);
    output::note(format!("{} vectors of {rows} rows in {batches} batches", summary.vectors));
    if summary.failed > 0 {
        output::warning(format!("{} values could not be embedded; the columns MODALITY_error say why", summary.failed));
    }
    Ok(())
}
