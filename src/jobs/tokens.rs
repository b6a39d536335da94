//! The tokens of the record, as the gate checks them: read at the start and after every change.

use std::sync::Arc;

use super::shared::Shared;
use crate::{
    base::clock::Timestamp,
    gate::{Token, Tokens},
    store::{
        StoreError,
        tokens::{self, TokenRow},
    },
};

/// Reads them anew. One that expires later is refused by the check itself.
///
/// # Errors
/// The record can't be read; what was known stays.
pub(super) async fn load(shared: &Arc<Shared>) -> Result<(), StoreError> {
    let rows = shared.store.read(|db| tokens::good(db, Timestamp::now())).await?;
    let table = rows
        .into_iter()
        .map(|row| (row.digest, Token::new(row.id, row.controller_id, row.rights, row.expires_at)));
    let old = shared.tokens.swap(Arc::new(Tokens::new(table)));
    note_uses(shared, &old).await;
    Ok(())
}

/// Adds a token; it is good when this has answered. `false`: there are too many.
///
/// # Errors
/// The record can't be written.
pub(super) async fn create(shared: &Arc<Shared>, row: TokenRow) -> Result<bool, StoreError> {
    let created = shared.store.write(move |tx| tokens::create(tx, &row)).await?;
    load(shared).await?;
    Ok(created)
}

/// Revokes a token; it is good no more when this has answered. For the answer see [`tokens::revoke`].
///
/// # Errors
/// The record can't be written.
pub(super) async fn revoke(shared: &Arc<Shared>, id: String) -> Result<Option<bool>, StoreError> {
    let revoked = shared.store.write(move |tx| tokens::revoke(tx, &id, Timestamp::now())).await?;
    load(shared).await?;
    Ok(revoked)
}

/// Puts into the record when tokens were used.
pub(super) async fn uses(shared: &Arc<Shared>) {
    let known = shared.tokens.load_full();
    note_uses(shared, &known).await;
}

async fn note_uses(shared: &Arc<Shared>, known: &Tokens) {
    let uses: Vec<(String, Timestamp)> =
        known.iter().filter_map(|token| Some((token.id.clone(), token.take_use()?))).collect();
    if uses.is_empty() {
        return;
    }
    if let Err(error) = shared.store.write(move |tx| tokens::used(tx, &uses)).await {
        tracing::warn!(%error, "the last use of tokens could not be recorded");
    }
}
