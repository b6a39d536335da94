//! What of a configuration only a restart changes.

use super::Config;

impl Config {
    /// The keys that `new` has otherwise and that a reload can't change, as they stand in the file.
    pub fn needs_restart(&self, new: &Config) -> Vec<&'static str> {
        let (server, other) = (&self.server, &new.server);
        let (sandbox, others) = (&self.sandbox, &new.sandbox);
        [
            ("agent_id", self.agent_id != new.agent_id),
            ("listen", server.listen.ip() != other.listen.ip()),
            ("port", server.listen.port() != other.listen.port()),
            ("tls_cert_file (with or without TLS)", server.tls.is_some() != other.tls.is_some()),
            ("connections.handshake_timeout", server.handshake_timeout != other.handshake_timeout),
            ("connections.header_timeout", server.header_timeout != other.header_timeout),
            ("connections.idle_timeout", server.idle_timeout != other.idle_timeout),
            ("docker_host", sandbox.docker_host != others.docker_host),
            ("pull_policy", sandbox.pull_policy != others.pull_policy),
            ("pull_stall", sandbox.pull_stall != others.pull_stall),
            ("sandbox.uid", sandbox.uid != others.uid),
            ("sandbox.gid", sandbox.gid != others.gid),
            ("sandbox.workdir", sandbox.workdir != others.workdir),
            ("sandbox.runtimes", sandbox.runtimes != others.runtimes),
            ("sandbox.nofile", sandbox.nofile != others.nofile),
            ("sandbox.fsize", sandbox.fsize != others.fsize),
            ("sandbox.shm", sandbox.shm != others.shm),
            ("pool", sandbox.pool != others.pool),
            ("run_as_user", self.run_as.user != new.run_as.user),
            ("run_as_group", self.run_as.group != new.run_as.group),
            ("audit_db_path", self.audit_db_path != new.audit_db_path),
            ("data_dir", self.data_dir != new.data_dir),
            ("log", self.log != new.log),
        ]
        .into_iter()
        .filter_map(|(key, changed)| changed.then_some(key))
        .collect()
    }
}
