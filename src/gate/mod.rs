//! The gate: who may do what. Pure: envelope, policy, `now` in; [`Admitted`] or a refusal out.
