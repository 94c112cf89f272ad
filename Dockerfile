# wsiseg in a container, with the bundled model: it needs no network when it runs.
#
#     docker build -t wsiseg .                                                                       for processors
#     docker build -t wsiseg --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cu128 .       for NVIDIA GPUs
#     docker run --rm -v "$PWD:/data" wsiseg segment slide.svs -o slide.geojson
#
# On a cluster without Docker: apptainer build wsiseg.sif docker-daemon:wsiseg:latest
FROM python:3.11-slim-bookworm AS build

# Which build of torch: the one for processors has a tenth of the size.
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu

RUN python -m venv /opt/wsiseg
ENV PATH=/opt/wsiseg/bin:$PATH PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1

WORKDIR /src
COPY requirements.lock ./
# torch first, from its index, at the version of the lock; the rest then finds it there.
# hadolint ignore=DL3013
RUN pip install --index-url "$TORCH_INDEX" "$(grep '^torch==' requirements.lock)"

COPY pyproject.toml README.md LICENSE ./
COPY wsiseg ./wsiseg
# The lock as a constraint: its versions of what wsiseg needs to run, and nothing of what only develops it.
RUN pip install --constraint requirements.lock '.[dicom]'

FROM python:3.11-slim-bookworm

# Its own user: what it writes belongs to nobody important, and `--user` may name another.
RUN useradd --create-home --uid 1000 wsiseg
COPY --from=build /opt/wsiseg /opt/wsiseg
ENV PATH=/opt/wsiseg/bin:$PATH NUMBA_CACHE_DIR=/tmp/wsiseg-numba
USER 1000
WORKDIR /data
ENTRYPOINT ["wsiseg"]
CMD ["--help"]
