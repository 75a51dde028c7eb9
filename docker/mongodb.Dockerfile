# MongoDB as it comes, with a data folder that belongs to the user who owns the secret files: the container never runs as
# root, so nothing can hand the folder over later. Not under /data/db, which the image below declares as a volume.
FROM mongo:8.0.12
ARG UID=1000
RUN install --directory --owner="${UID}" --mode=0700 /var/lib/facade-mongodb
ENV HOME=/tmp
USER ${UID}
VOLUME /var/lib/facade-mongodb
ENTRYPOINT []
