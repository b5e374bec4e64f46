//! Reading the values of a data set that are still to be embedded.

use super::{
    pipeline::{Batches, ValueKey},
    row_list::{RowList, unread},
    state::OpenEntries,
};
use crate::{Error, Result};
use mm_core::Modality;

impl RowList {
    /// Gives the values of these modalities that are still to be embedded, in the order of [`RowList::entries`]. The data
    /// set is read once for each modality that has any.
    pub(super) fn give_values(
        &self,
        modalities: &[Modality],
        open: &OpenEntries,
        batches: &mut Batches<'_>,
    ) -> Result<()> {
        let mut first = 0;
        for modality in modalities {
            let end = first + self.entries_of(modality);
            if open.are_in(first..end) {
                self.give_values_of(modality, first, open, batches)?;
            }
            first = end;
        }
        Ok(())
    }

    /// Gives the values of a modality, the first of which is the entry `next`.
    fn give_values_of(
        &self,
        modality: &Modality,
        mut next: usize,
        open: &OpenEntries,
        batches: &mut Batches<'_>,
    ) -> Result<()> {
        let mut listed = self.rows();
        self.data.for_each_piece(true, |piece| {
            batches.check_wanted()?;
            for mut row in piece.rows {
                let sources = row.values.remove(modality).unwrap_or_default();
                let expected = listed.next().transpose().map_err(unread)?;
                if !expected.is_some_and(|expected| self.is_listed(&expected, &row.id, modality, sources.len())) {
                    return Err(self.changed(row.number));
                }
                let end = next + sources.len().max(1);
                for (source, entry) in sources.into_iter().zip(next..).filter(|(_, entry)| open.contains(*entry)) {
                    batches.push(modality, ValueKey { entry, id: row.id.clone() }, source)?;
                }
                next = end;
            }
            Ok(())
        })?;
        if listed.next().is_some() {
            let reason = "has fewer rows than when it was read first; keep it as it is while it is embedded";
            return Err(Error::file(self.data.path(), reason));
        }
        Ok(())
    }

    fn changed(&self, row: usize) -> Error {
        let reason = "is another row than when the table was read first; keep the table as it is while it is embedded";
        mm_data::Error::Row { path: self.data.path().to_owned(), row, reason: reason.into() }.into()
    }
}
