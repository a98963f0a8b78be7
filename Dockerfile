# The image in which every stage runs on Kubeflow Pipelines and Vertex AI.
#
#   make image                     lmworks:0.1.0        docker build --tag lmworks:0.1.0 .
#   make image ACCELERATOR=gpu     lmworks:0.1.0-gpu    docker build --tag lmworks:0.1.0-gpu --build-arg ACCELERATOR=gpu .
#
# Files and callbacks that a config names by path go into an image of your own, which platform.image then names:
#
#   FROM lmworks:0.1.0
#   COPY my_callbacks.py my.csv ./
#
# The user has a number, for Kubernetes' runAsNonRoot, and group 0, so that a platform may give it another number (OpenShift
# does). Where the group is another one too, platform.<stage>.environment: {HOME: /tmp} gives caches a place.
# Buckets (/gcs, /s3, /minio) and volumes are mounted by the platform and must be writable for this user: a claim on a block
# device needs an fsGroup from the cluster's policy, for KFP cannot ask for it. Where there is none: USER 0 in your own image.
# Secrets come as variables or files from the cluster (platform.<stage>.secrets), never into the image.

# With a digest: --build-arg BASE=python:3.11.14-slim-bookworm@sha256:...
ARG BASE=python:3.11.14-slim-bookworm

FROM ${BASE} AS dependencies
# cpu, or gpu: CUDA's libraries; the driver is the host's.
ARG ACCELERATOR=cpu
ENV PATH=/opt/lmworks/bin:$PATH PYTHONUNBUFFERED=1 PIP_DISABLE_PIP_VERSION_CHECK=1
COPY requirements-${ACCELERATOR}.lock /opt/lmworks/requirements.lock
# pip.conf names an index of your own, if you have one, to the build alone: --secret id=pip.conf,src=FILE
# TensorFlow's C++ headers (430 MB) only compile extensions. Python's own library has no byte code in the base image, and the
# user could not write it.
RUN --mount=type=secret,id=pip.conf \
    python -m venv /opt/lmworks && \
    PIP_CONFIG_FILE=/run/secrets/pip.conf pip install --no-cache-dir --only-binary :all: \
        --require-hashes --requirement /opt/lmworks/requirements.lock && \
    rm -r /opt/lmworks/lib/python3*/site-packages/tensorflow/include && \
    python -m compileall -q "$(python -c 'import os; print(os.path.dirname(os.__file__))')"

FROM dependencies AS wheel
WORKDIR /source
COPY . .
RUN pip wheel --no-cache-dir --no-deps --no-build-isolation --wheel-dir /wheel .

FROM dependencies
RUN --mount=type=bind,from=wheel,source=/wheel,target=/wheel \
    pip install --no-cache-dir --no-index --no-deps /wheel/*.whl && \
    useradd --no-log-init --uid 10001 --gid 0 --create-home lmworks && \
    chmod -R g=u /home/lmworks
# Where Google's clusters mount the GPU's driver, and what is wanted of it where NVIDIA's own runtime does.
ENV HOME=/home/lmworks LD_LIBRARY_PATH=/usr/local/nvidia/lib64 NVIDIA_DRIVER_CAPABILITIES=compute,utility
WORKDIR /home/lmworks
USER 10001:0
CMD ["lmworks", "--help"]
