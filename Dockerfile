# tfcorr with everything that it needs, as a command:
#   docker build -t tfcorr .
#   docker run --rm -v "$PWD:/work" --user "$(id -u):$(id -g)" tfcorr train clicks.yaml
FROM python:3.12-slim
COPY requirements.txt setup.py README.md LICENSE MANIFEST.in /source/
COPY tfcorr /source/tfcorr
RUN pip install --no-cache-dir --disable-pip-version-check /source && tfcorr doctor
WORKDIR /work
ENV HOME=/tmp
EXPOSE 8500 8501
ENTRYPOINT ["tfcorr"]
