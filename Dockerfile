# 'oncontour run' without a network, and without a graphics card. Not the patients, not the results, only the program is in the image:
#
#   make wheel
#   docker build -t oncontour .
#   docker run --rm --network none --user "$(id -u):$(id -g)" -v "$PWD:/data" oncontour run /data/CT_FOLDER --out /data/OUT
#
# tests/test_installed.py runs the RUN lines below without Docker.
FROM python:3.11-slim

# Loops that were compiled once, and fonts that were found once, serve every later run, whoever the container runs as.
ENV NUMBA_CACHE_DIR=/var/cache/oncontour/numba MPLCONFIGDIR=/var/cache/oncontour/matplotlib

COPY dist/oncontour-*.whl /tmp/
RUN python -m pip install --no-cache-dir /tmp/oncontour-*.whl && rm /tmp/oncontour-*.whl
RUN useradd --create-home oncontour
RUN install -d -m 1777 /var/cache/oncontour

USER oncontour
WORKDIR /home/oncontour

# One patient from end to end: an image that cannot do it is not built, and what is compiled on the way stays.
RUN oncontour demo --source mean --out /tmp/demo && rm -r /tmp/demo && chmod -R a+rwX /var/cache/oncontour/*

ENTRYPOINT ["oncontour"]
CMD ["--help"]
