# PostgreSQL 18 on a volume: made once with SCRAM and the password that init made; rights in pg_hba, no trust by TCP.
set -eu
PATH="$PATH:/usr/lib/postgresql/18/bin"
data=/var/lib/postgresql/claimhouse
if [ ! -f "$data/PG_VERSION" ]; then
    initdb -D "$data.new" -U postgres --auth-local=peer --auth-host=scram-sha-256 \
        --pwfile=/stack/secrets/postgres_admin --encoding=UTF8 --locale=C.UTF-8
    printf 'local all postgres peer\nhost all all all scram-sha-256\nhost replication all all scram-sha-256\n' \
        > "$data.new/pg_hba.conf"
    mv "$data.new" "$data"
fi
exec postgres -D "$data" -c listen_addresses='*' -c unix_socket_directories=/tmp -c wal_level=logical \
    -c max_slot_wal_keep_size=4GB -c shared_buffers=128MB -c timezone=UTC
