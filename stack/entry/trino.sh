# Trino with our etc folder instead of the image's; S3 keys by the environment that Trino's configuration names.
set -eu
S3_ACCESS_KEY=$(cat /stack/secrets/s3_key) S3_SECRET_KEY=$(cat /stack/secrets/s3_secret)
export S3_ACCESS_KEY S3_SECRET_KEY
# Of the image's many plugins only the one that is used: each costs memory and seconds.
mkdir -p /tmp/plugin
ln -sfn /usr/lib/trino/plugin/delta-lake /tmp/plugin/delta-lake
exec /usr/lib/trino/bin/launcher run --etc-dir /stack/etc/trino
