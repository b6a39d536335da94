//! Bearer tokens: their hashes, what they are good for, and until when.

use rusqlite::{Connection, OptionalExtension, Row, params};
use serde_json::json;

use crate::{
    audit::Event,
    base::clock::Timestamp,
    store::{StoreError, Tx, audit},
    wire::rights::Rights,
};

/// Tokens that may be good at the same time.
pub const MOST: usize = 10_000;

/// A token, but for its text, which is nowhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenRow {
    pub id: String,
    /// SHA-256 of its text.
    pub digest: [u8; 32],
    /// What the operator calls it.
    pub name: Option<String>,
    /// The one controller that it is for.
    pub controller_id: Option<String>,
    pub rights: Rights,
    pub created_at: Timestamp,
    pub expires_at: Timestamp,
    pub revoked_at: Option<Timestamp>,
    /// To a minute.
    pub last_used_at: Option<Timestamp>,
}

/// Adds a token. `false`: there are [`MOST`] that are good already.
///
/// # Errors
/// Those of the database, as for all functions here.
pub fn create(tx: &Tx<'_>, token: &TokenRow) -> Result<bool, StoreError> {
    let good: i64 = tx
        .prepare_cached("SELECT count(*) FROM tokens WHERE revoked_at IS NULL AND expires_at >= ?")?
        .query_row([token.created_at.0], |row| row.get(0))?;
    if usize::try_from(good).is_ok_and(|good| good >= MOST) {
        return Ok(false);
    }
    tx.prepare_cached(
        "INSERT INTO tokens (id, digest, name, controller_id, scopes, created_at, expires_at) \
         VALUES (?, ?, ?, ?, ?, ?, ?)",
    )?
    .execute(params![
        token.id,
        token.digest,
        token.name,
        token.controller_id,
        token.rights.to_string(),
        token.created_at.0,
        token.expires_at.0
    ])?;
    let details = json!({
        "id": token.id, "name": token.name, "controller_id": token.controller_id,
        "scopes": token.rights, "expires_at": token.expires_at.0,
    });
    audit::append(tx, token.created_at, &Event::Agent { kind: "token.created", details: &details })?;
    Ok(true)
}

/// Revokes a token. `None`: there is none of that id; `Some(false)`: it was revoked before.
///
/// # Errors
/// See [`create`].
pub fn revoke(tx: &Tx<'_>, id: &str, now: Timestamp) -> Result<Option<bool>, StoreError> {
    let known: Option<bool> = tx
        .prepare_cached("SELECT revoked_at IS NULL FROM tokens WHERE id = ?")?
        .query_row([id], |row| row.get(0))
        .optional()?;
    if known == Some(true) {
        tx.prepare_cached("UPDATE tokens SET revoked_at = ? WHERE id = ?")?.execute(params![now.0, id])?;
        audit::append(tx, now, &Event::Agent { kind: "token.revoked", details: &json!({"id": id}) })?;
    }
    Ok(known)
}

/// Notes when tokens were last used.
///
/// # Errors
/// See [`create`].
pub fn used(tx: &Tx<'_>, uses: &[(String, Timestamp)]) -> Result<(), StoreError> {
    let mut statement =
        tx.prepare_cached("UPDATE tokens SET last_used_at = max(coalesce(last_used_at, 0), ?) WHERE id = ?")?;
    for (id, at) in uses {
        statement.execute(params![at.0, id])?;
    }
    Ok(())
}

/// Every token, the newest first.
///
/// # Errors
/// See [`create`].
pub fn all(conn: &Connection) -> Result<Vec<TokenRow>, StoreError> {
    select(conn, "ORDER BY created_at DESC, id", &[])
}

/// The tokens that are not revoked and not expired at that moment.
///
/// # Errors
/// See [`create`].
pub fn good(conn: &Connection, now: Timestamp) -> Result<Vec<TokenRow>, StoreError> {
    select(conn, "WHERE revoked_at IS NULL AND expires_at >= ?", &[&now.0])
}

/// Removes what expired or was revoked before a moment; how many that were. The audit log keeps what they were.
///
/// # Errors
/// See [`create`].
pub fn forget(tx: &Tx<'_>, before: Timestamp) -> Result<usize, StoreError> {
    Ok(tx
        .prepare_cached("DELETE FROM tokens WHERE expires_at < ?1 OR revoked_at < ?1")?
        .execute([before.0])?)
}

fn select(
    conn: &Connection,
    rest: &str,
    values: &[&dyn rusqlite::ToSql],
) -> Result<Vec<TokenRow>, StoreError> {
    let mut statement = conn.prepare_cached(&format!(
        "SELECT id, digest, name, controller_id, scopes, created_at, expires_at, revoked_at, last_used_at \
         FROM tokens {rest}"
    ))?;
    let read = |row: &Row<'_>| {
        let time = |at: Option<i64>| at.map(Timestamp);
        let scopes: String = row.get(4)?;
        Ok(TokenRow {
            id: row.get(0)?,
            digest: row.get(1)?,
            name: row.get(2)?,
            controller_id: row.get(3)?,
            // A right that a newer agent has given and this one does not know gives nothing here.
            rights: Rights::parse(&scopes).unwrap_or_default(),
            created_at: Timestamp(row.get(5)?),
            expires_at: Timestamp(row.get(6)?),
            revoked_at: time(row.get(7)?),
            last_used_at: time(row.get(8)?),
        })
    };
    Ok(statement.query_map(values, read)?.collect::<Result<_, _>>()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Store;

    fn row(id: &str, created: i64) -> TokenRow {
        let mut digest = [0; 32];
        digest[..id.len()].copy_from_slice(id.as_bytes());
        TokenRow {
            id: id.to_owned(),
            digest,
            name: Some("a test".to_owned()),
            controller_id: None,
            rights: Rights::parse("read operate").unwrap(),
            created_at: Timestamp(created),
            expires_at: Timestamp(created + 100),
            revoked_at: None,
            last_used_at: None,
        }
    }

    #[tokio::test]
    async fn tokens_are_kept_revoked_and_forgotten() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path().join("audit.db")).unwrap();
        for (id, created) in [("a", 10), ("b", 20)] {
            let row = row(id, created);
            assert!(store.write(move |tx| create(tx, &row)).await.unwrap());
        }
        let good = |now| store.read(move |db| good(db, Timestamp(now)));
        assert_eq!(good(110).await.unwrap().len(), 2, "the last moment is still good");
        assert_eq!(good(111).await.unwrap(), [row("b", 20)]);
        assert_eq!(store.write(|tx| revoke(tx, "b", Timestamp(30))).await.unwrap(), Some(true));
        assert_eq!(store.write(|tx| revoke(tx, "b", Timestamp(40))).await.unwrap(), Some(false));
        assert_eq!(store.write(|tx| revoke(tx, "c", Timestamp(40))).await.unwrap(), None);
        assert_eq!(good(50).await.unwrap(), [row("a", 10)]);
        let uses = vec![("a".to_owned(), Timestamp(60)), ("a".to_owned(), Timestamp(55))];
        store.write(move |tx| used(tx, &uses)).await.unwrap();
        let all_of = store.read(all).await.unwrap();
        let shown: Vec<_> = all_of.iter().map(|row| (&*row.id, row.revoked_at, row.last_used_at)).collect();
        assert_eq!(shown, [("b", Some(Timestamp(30)), None), ("a", None, Some(Timestamp(60)))]);
        assert_eq!(store.write(|tx| forget(tx, Timestamp(31))).await.unwrap(), 1);
        assert_eq!(store.write(|tx| forget(tx, Timestamp(111))).await.unwrap(), 1);
        let kinds: Vec<String> = store
            .read(|db| {
                let mut statement = db.prepare("SELECT kind FROM audit ORDER BY number")?;
                Ok(statement.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?)
            })
            .await
            .unwrap();
        assert_eq!(kinds, ["token.created", "token.created", "token.revoked"]);
    }
}
