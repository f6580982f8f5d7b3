# S3 over a folder: objects and their attributes stay in the volume.
set -eu
mkdir -p /data/claimhouse
ROOT_ACCESS_KEY=$(cat /stack/secrets/s3_key) ROOT_SECRET_KEY=$(cat /stack/secrets/s3_secret)
export ROOT_ACCESS_KEY ROOT_SECRET_KEY
exec /app/versitygw --port :7070 --health /health --region "$(cat /stack/etc/region)" posix /data
