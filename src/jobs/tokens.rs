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

/// In nanoseconds.
const A_DAY: i64 = 86_400_000_000_000;

/// Reads them anew. One that expires later is refused by the check itself.
///
/// # Errors
/// The record can't be read; what was known stays.
pub(super) async fn load(shared: &Arc<Shared>) -> Result<(), StoreError> {
    // One after the other: what was read first must not be put in place last.
    let _one = shared.reading_tokens.lock().await;
    // Those of yesterday, too: the clock may be ahead now and put right later. Their check looks at the time.
    let since = Timestamp(Timestamp::now().0.saturating_sub(A_DAY));
    let rows = shared.store.read(move |db| tokens::good(db, since)).await?;
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
    let shared = Arc::clone(shared);
    to_the_end(async move {
        let created = shared.store.write(move |tx| tokens::create(tx, &row)).await?;
        load(&shared).await?;
        Ok(created)
    })
    .await
}

/// Revokes a token; it is good no more when this has answered. For the answer see [`tokens::revoke`].
///
/// # Errors
/// The record can't be written.
pub(super) async fn revoke(shared: &Arc<Shared>, id: String) -> Result<Option<bool>, StoreError> {
    let shared = Arc::clone(shared);
    to_the_end(async move {
        let token = id.clone();
        let revoked = shared.store.write(move |tx| tokens::revoke(tx, &token, Timestamp::now())).await?;
        shared.tokens.load().revoke(&id);
        load(&shared).await?;
        Ok(revoked)
    })
    .await
}

/// Whoever asked may have stopped waiting when the record has it: the table must follow all the same.
async fn to_the_end<T: Send + 'static>(
    work: impl Future<Output = Result<T, StoreError>> + Send + 'static,
) -> Result<T, StoreError> {
    tokio::spawn(work).await.unwrap_or_else(|error| Err(StoreError::Internal(error.to_string())))
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
