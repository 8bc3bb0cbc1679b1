// Two meshes under one camera: beside each other, or one left and one right of a line.

import {
  Box3, Color, DirectionalLight, DoubleSide, Group, HemisphereLight, Mesh,
  MeshStandardMaterial, PerspectiveCamera, Scene, Spherical, Vector3, WebGLRenderer,
} from 'three';
import {OrbitControls} from './three/controls/OrbitControls.js';
import {GLTFLoader} from './three/loaders/GLTFLoader.js';

const CLAY = 0xb9b4ab, FIELD_OF_VIEW = 32, TURN = Math.PI / 18, NEARER = 0.85;
const FRONTS = {z: 0, x: Math.PI / 2, '-z': Math.PI, '-x': -Math.PI / 2};

/** A canvas with the input and, once there is one, the result. */
export class Viewer {
  /** @param {HTMLCanvasElement} canvas where; throws where the browser has no WebGL */
  constructor(canvas) {
    this.canvas = canvas;
    try {
      this.renderer = new WebGLRenderer({canvas, antialias: true, alpha: true});
    } catch {
      throw new Error('This browser shows no 3-D (WebGL is off). The files can be saved all the '
        + 'same.');
    }
    this.renderer.setScissorTest(true);
    this.scene = new Scene();
    this.meshes = {};
    this.ways = {facets: false, wires: false, clay: false};
    this.mode = 'side';
    this.at = 0.5;
    this.key = new DirectionalLight(0xffffff, 2.4);
    this.scene.add(new HemisphereLight(0xffffff, 0x8d8779, 1.3), this.key, this.key.target);
    this.camera = new PerspectiveCamera(FIELD_OF_VIEW, 1, 0.01, 100);
    this.controls = new OrbitControls(this.camera, canvas);
    this.controls.minDistance = 0.05;
    this.controls.maxDistance = 30;
    this.controls.addEventListener('change', () => this.draw());
    this.sizes = new ResizeObserver(() => this.draw());
    this.sizes.observe(canvas);
    canvas.addEventListener('keydown', event => this.onKey(event));
    this.front = 0;
    this.reset();
  }

  has(name) {
    return name in this.meshes;
  }

  get isColoured() {
    let found = false;
    this.scene.traverse(each => { found ||= Boolean(each.geometry?.attributes.color); });
    return found;
  }

  /** Adds a mesh from the bytes of a GLB, standing upright and in a ball of radius one. */
  async add(name, data, {zUp, shared, front}) {
    const {scene} = await new GLTFLoader().parseAsync(data, '');
    const upright = new Group().add(scene);
    if (zUp) upright.rotation.x = -Math.PI / 2;
    const whole = new Group().add(upright);
    scene.traverse(each => { if (each instanceof Mesh) dress(each); });
    if (!shared || !this.frame) {
      const box = new Box3().setFromObject(whole);
      const centre = box.getCenter(new Vector3());
      this.frame = {centre, scale: 2 / (box.getSize(new Vector3()).length() || 1)};
    }
    whole.scale.setScalar(this.frame.scale);
    whole.position.copy(this.frame.centre).multiplyScalar(-this.frame.scale);
    this.scene.add(whole);
    this.meshes[name] = whole;
    this.applyWays();
    if (this.front !== FRONTS[front]) {
      this.front = FRONTS[front] ?? 0;
      this.reset();
    }
    this.draw();
  }

  /** Sets the arrangement: `side` or `slide`. */
  arrange(mode) {
    this.mode = mode;
    this.canvas.dataset.mode = mode;
    this.draw();
  }

  /** Sets where the line between input and result is, from 0 to 1. */
  split(at) {
    this.at = at;
    this.draw();
  }

  /** Turns a way of looking on or off: `facets`, `wires` or `clay`. */
  look(way, on) {
    this.ways[way] = on;
    this.applyWays();
    this.draw();
  }

  applyWays() {
    for (const whole of Object.values(this.meshes)) {
      whole.traverse(each => {
        if (!(each instanceof Mesh)) return;
        const {material, geometry} = each;
        material.flatShading = this.ways.facets;
        material.wireframe = this.ways.wires;
        material.vertexColors = 'color' in geometry.attributes && !this.ways.clay;
        material.color = new Color(material.vertexColors ? 0xffffff : CLAY);
        material.needsUpdate = true;
      });
    }
  }

  reset() {
    this.controls.target.set(0, 0, 0);
    this.camera.position.setFromSpherical(new Spherical(3.7, 1.35, this.front + 0.45));
    this.controls.update();
    this.draw();
  }

  onKey(event) {
    const offset = new Vector3().subVectors(this.camera.position, this.controls.target);
    const way = new Spherical().setFromVector3(offset);
    const moves = {
      ArrowLeft: () => { way.theta -= TURN; }, ArrowRight: () => { way.theta += TURN; },
      ArrowUp: () => { way.phi -= TURN; }, ArrowDown: () => { way.phi += TURN; },
      '+': () => { way.radius *= NEARER; }, '=': () => { way.radius *= NEARER; },
      '-': () => { way.radius /= NEARER; },
    };
    if (event.key === '0') this.reset();
    if (!moves[event.key] || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    moves[event.key]();
    this.camera.position.copy(this.controls.target)
      .add(offset.setFromSpherical(way.makeSafe()));
    this.controls.update();
    this.draw();
  }

  draw() {
    // Once a frame is enough, however many changes it brings.
    this.waiting ??= requestAnimationFrame(() => {
      this.waiting = null;
      this.paint();
    });
  }

  paint() {
    const {clientWidth: width, clientHeight: height} = this.canvas;
    if (!width || !height || !this.renderer) return;
    this.renderer.setPixelRatio(Math.min(devicePixelRatio, 2));
    this.renderer.setSize(width, height, false);
    this.key.position.copy(this.camera.localToWorld(new Vector3(-1.2, 1.6, 0.4)));
    this.key.target.position.copy(this.controls.target);
    const names = Object.keys(this.meshes);
    if (names.length < 2) {
      names.forEach(name => this.pass(name, [0, 0, width, height], [0, 0, width, height]));
    } else if (this.mode === 'slide') {
      const line = width * this.at;
      this.pass('input', [0, 0, width, height], [0, 0, line, height]);
      this.pass('result', [0, 0, width, height], [line, 0, width - line, height]);
    } else if (width >= height) {
      const half = width / 2;
      this.pass('input', [0, 0, half, height], [0, 0, half, height]);
      this.pass('result', [half, 0, half, height], [half, 0, half, height]);
    } else {
      const half = height / 2;
      this.pass('input', [0, half, width, half], [0, half, width, half]);
      this.pass('result', [0, 0, width, half], [0, 0, width, half]);
    }
    this.canvas.dataset.painted = names.join(' ');
  }

  pass(name, view, cut) {
    if (cut[2] <= 0) return;
    for (const [other, mesh] of Object.entries(this.meshes)) mesh.visible = other === name;
    const aspect = view[2] / view[3];
    this.camera.aspect = aspect;
    // What fits a square fits a narrow view, too.
    const half = Math.tan(FIELD_OF_VIEW * Math.PI / 360) / Math.min(aspect, 1);
    this.camera.fov = 360 / Math.PI * Math.atan(half);
    this.camera.updateProjectionMatrix();
    this.renderer.setViewport(...view);
    this.renderer.setScissor(...cut);
    this.renderer.render(this.scene, this.camera);
  }

  close() {
    cancelAnimationFrame(this.waiting);
    this.sizes.disconnect();
    this.controls.dispose();
    this.scene.traverse(each => {
      each.geometry?.dispose();
      each.material?.dispose();
    });
    this.renderer.dispose();
    // A browser has a few contexts only, and gives back those that are let go.
    this.renderer.forceContextLoss();
    this.renderer = null;
  }
}

/** Gives a mesh normals and a material of our own: previews hold shape and colours only. */
function dress(mesh) {
  if (!mesh.geometry.attributes.normal) mesh.geometry.computeVertexNormals();
  mesh.material = new MeshStandardMaterial({roughness: 0.7, metalness: 0, side: DoubleSide});
}
