-- Run once, when the volume is new.
CREATE DATABASE mlflow;
CREATE DATABASE feast;
